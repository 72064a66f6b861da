// Looks at the page in headless Chromium: node look.cjs URL DIRECTORY. Says on each line what it saw; the test acts on that.
"use strict";
const { chromium } = require("playwright-core");
const [url, directory] = process.argv.slice(2);

async function main() {
  const browser = await chromium.launch({
    executablePath: process.env.AUDITFERRY_E2E_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  const errors = [];
  page.on("console", message => { if (message.type() === "error") errors.push(message.text()); });
  page.on("pageerror", error => errors.push(String(error)));
  const shot = name => page.screenshot({ path: `${directory}/${name}.png`, fullPage: true });
  const shows = async state => {
    await page.waitForFunction(text => document.querySelector(".state")?.textContent === text, state, { timeout: 60000 });
    console.log(state);
  };
  await page.goto(url);
  await page.waitForSelector(".recent tbody tr");
  await shows("running");
  await shot("wide");
  // By keyboard alone: what scrolls can be reached, and what was reached is not lost when the page updates.
  await page.setViewportSize({ width: 400, height: 900 });
  for (let step = 0; step < 10; step++) {
    if (await page.evaluate(() => document.activeElement.className === "scroll")) break;
    await page.keyboard.press("Tab");
  }
  await page.evaluate(() => { document.activeElement.scrollLeft = 100; });
  await page.waitForTimeout(3000);
  const box = await page.evaluate(() => [document.activeElement.className, document.activeElement.scrollLeft]);
  console.log(`focus ${box.join(" ")}`);
  console.log(`width ${await page.evaluate(() => document.documentElement.scrollWidth)}`);
  await shot("narrow");
  await shows("trying again");
  await shot("narrow-down");
  await shows("running");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 1200, height: 900 });
  await shot("dark");
  console.log(`errors ${JSON.stringify(errors)}`);
  await browser.close();
}

main().catch(error => { console.log(`failed ${error}`); process.exit(1); });
