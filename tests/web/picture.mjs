// Draws the README's picture of the page, tools/page.png, from dist/:  node tests/web/picture.mjs
import path from "node:path";
import { fileURLToPath } from "node:url";
import { openPage, startBrowser, startSite } from "./harness.mjs";

const TARGET = fileURLToPath(new URL("../../tools/page.png", import.meta.url));
/** Checkpoint, prompt and seed; the last one stands on the plate. */
const PICTURES = [
  ["soft", "evergreen tree", 4],
  ["3d", "grinning face", 3],
  ["ink", "grinning face", 3],
  ["flat", "grinning face", 3],
  ["soft", "grinning face", 3],
];

const site = await startSite();
const browser = await startBrowser();
try {
  const { page } = await openPage(browser, site.url, { viewport: { width: 1200, height: 1010 }, colorScheme: "light" });
  await page.waitForSelector("#generate:enabled");
  for (const [index, [checkpoint, prompt, seed]] of PICTURES.entries()) {
    await page.click(`.card:has([value="${checkpoint}"])`);
    await page.fill("#prompt", prompt);
    await page.fill("#seed", String(seed));
    await page.press("#prompt", "Enter");
    await page.waitForFunction((count) => document.querySelectorAll("#strip li").length === count, index + 1, { timeout: 120_000 });
  }
  await page.evaluate(() => document.activeElement.blur());
  await page.waitForTimeout(1000);
  await page.screenshot({ path: TARGET });
  console.log(`wrote ${path.relative(process.cwd(), TARGET)}`);
} finally {
  await browser.close();
  await site.close();
}
