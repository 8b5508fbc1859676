// Shows a page in headless Chromium and tells, as JSON, what is to be seen there: node page.mjs SCREENSHOT.png < PAGE.html

import { readFileSync } from "node:fs";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [screenshot] = process.argv.slice(2);
const browser = await puppeteer.launch({
  args: [
    ...chromium.args,
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
  ],
  executablePath: await chromium.executablePath(),
  headless: "shell",
  defaultViewport: { width: 1400, height: 560 },
});
try {
  const page = await browser.newPage();
  const asked = [];
  const said = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("dialog", (dialog) => {
    said.push(dialog.message());
    dialog.dismiss();
  });
  await page.setContent(readFileSync(0, "utf8"));
  const seen = await page.evaluate(() => {
    const weight = (row) => Number(getComputedStyle(row.cells[1]).fontWeight);
    const texts = (row) => [...row.cells].map((cell) => cell.innerText);
    const rows = [...document.querySelectorAll(".exports tbody tr")];
    return {
      header: [...document.querySelectorAll(".exports th")].map((cell) => cell.innerText),
      rows: rows.map(texts),
      night: [...document.querySelectorAll(".night tbody tr")].map(texts),
      bold: rows.filter((row) => weight(row) >= 600).map((row) => row.cells[0].innerText),
      text: document.body.innerText,
      width: document.documentElement.scrollWidth,
    };
  });
  await page.screenshot({ path: screenshot });
  console.log(JSON.stringify({ ...seen, asked, said }));
} finally {
  await browser.close();
}
