// Draws the README's picture of the page, tools/page.png, from dist/:  node tests/web/picture.mjs
import path from "node:path";
import { fileURLToPath } from "node:url";
import { openPage, startBrowser, startSite } from "./harness.mjs";

const TARGET = fileURLToPath(new URL("../../tools/page.png", import.meta.url));
const site = await startSite();
const browser = await startBrowser();
try {
  const { page } = await openPage(browser, site.url, { viewport: { width: 1200, height: 1000 }, colorScheme: "light" });
  await page.waitForSelector("#generate:enabled");
  await page.fill("#prompt", "fox");
  await page.fill("#seed", "7");
  await page.click("#compare-draw");
  await page.waitForSelector("#compare-save:not([hidden])", { timeout: 240_000 });
  await page.click("#compare-cells button");
  await page.evaluate(() => (document.activeElement.blur(), scrollTo(0, 0)));
  await page.waitForTimeout(1000);
  // Without what the page says of memory and storage, which is below.
  const bottom = await page.$eval("#compare", (section) => section.getBoundingClientRect().bottom + scrollY);
  await page.screenshot({ path: TARGET, fullPage: true, clip: { x: 0, y: 0, width: 1200, height: Math.ceil(bottom) + 20 } });
  console.log(`wrote ${path.relative(process.cwd(), TARGET)}`);
} finally {
  await browser.close();
  await site.close();
}
