// Seconds to a picture of the page's own checkpoints, by each way of drawing, on the CPU: `./build.sh bench pictures`.
//   node tests/web/pictures-bench.mjs [--rounds 7]
import { parseArgs } from "node:util";
import { openApi } from "./harness.mjs";
import { shipped } from "./server.mjs";
import { median } from "./store-speed.mjs";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "7" } } });
const rounds = Number(values.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds: expected a whole number from 1, found ${values.rounds}`);
const { checkpoints } = JSON.parse(shipped("", "checkpoints.json"));
const [chosen] = checkpoints;
const ways = checkpoints.filter(({ id, of }) => id === chosen.id || of === chosen.id);

console.log(`"fox" by ${chosen.name}, medians of ${rounds} turns`);
for (const isolated of [false, true]) {
  const { api, close } = await openApi({ isolated });
  try {
    const backend = await api.create({ backend: "cpu" });
    const seconds = new Map();
    for (const { id } of ways) {
      const { key } = await api.loadEntry(id);
      await api.draw({ checkpoint: key, prompt: "fox", seed: 0 });
      seconds.set(key, []);
    }
    for (let seed = 1; seed <= rounds; seed += 1) {
      for (const [checkpoint, times] of seconds) times.push((await api.draw({ checkpoint, prompt: "fox", seed })).timings.total / 1000);
    }
    const [first] = [...seconds.values()].map(median);
    console.log(`${backend.name}, ${backend.threads ?? 1} thread${backend.threads > 1 ? "s" : ""}`);
    ways.forEach(({ way, name }, i) => {
      const time = median([...seconds.values()][i]);
      const beside = i === 0 ? "" : `, ${(first / time).toFixed(1)} times as fast as the first`;
      console.log(`  ${(way ?? name).padEnd(9)} ${time.toFixed(2)} s${beside}`);
    });
  } finally {
    await close();
  }
}
