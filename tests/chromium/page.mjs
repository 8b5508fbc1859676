// Shows a page in headless Chromium and tells, as JSON, what is to be seen there: node page.mjs SCREENSHOT.png < PAGE.html
// So it tells of it at 1,400 pixels; and at 900, on paper, by keyboard, and by axe-core, as a screen reader finds it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [screenshot] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
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
      nights: [...document.querySelectorAll(".nights tbody tr")].map(texts),
      uploads: [...document.querySelectorAll(".uploads tbody tr")].map(texts),
      links: [...document.querySelectorAll("a")].map((link) => link.getAttribute("href")),
    };
  });
  await page.screenshot({ path: screenshot, fullPage: true });
  const focused = [];
  for (const _ of seen.links) {
    await page.keyboard.press("Tab");
    focused.push(
      await page.evaluate(() => {
        const style = getComputedStyle(document.activeElement);
        return [document.activeElement.getAttribute("href"), style.outlineStyle !== "none"];
      }),
    );
  }
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewport({ width: 900, height: 560 });
  const narrow = await width();
  await page.evaluate(axe); // from outside the page, whose policy allows no script
  const faults = await page.evaluate(async () => {
    const { violations, incomplete } = await window.axe.run(document);
    return [...violations, ...incomplete].map((fault) => `${fault.id}: ${fault.nodes.map((n) => n.html).join(" ")}`);
  });
  await page.emulateMediaType("print");
  await page.setViewport({ width: 718, height: 1047 }); // A4 with margins of a centimetre, in CSS's pixels
  const paper = await width();
  console.log(JSON.stringify({ ...seen, asked, said, focused, narrow, faults, paper }));
} finally {
  await browser.close();
}
