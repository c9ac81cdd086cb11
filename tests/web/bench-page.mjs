// Presses the button of bench.html and reads what it made.

/** The report, as "Copy as JSON" gives it. Rejects with what the page says where it fails. */
export async function pressBench(page, { timeout = 120_000, onPhase } = {}) {
  await page.waitForSelector('body[data-state="idle"]', { timeout });
  if (onPhase) {
    await page.exposeFunction("benchPhase", onPhase);
    await page.evaluate(() => {
      const said = document.getElementById("said");
      new MutationObserver(() => said.textContent && window.benchPhase(said.textContent)).observe(said, { childList: true });
    });
  }
  await page.click("#measure");
  await page.waitForSelector('body[data-state="measuring"]', { timeout });
  await page.waitForSelector('body[data-state="idle"]', { timeout });
  const error = await page.$eval("#error", (box) => (box.hidden ? null : box.textContent.trim().replace(/\s+/g, " ")));
  if (error) throw new Error(error);
  return copied(page);
}

/** What the button "Copy as JSON" copies. */
export async function copied(page) {
  await page.evaluate(() => {
    navigator.clipboard.writeText = async (text) => void (window.copied = text);
  });
  await page.click("#copy");
  return JSON.parse(await page.evaluate(() => window.copied));
}
