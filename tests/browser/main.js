// Every page of the dashboard in Chromium against live controllers. Ends with 1 at the first failure.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open, violations, WIDE, NARROW } from './browser.js';
import * as pages from './pages.js';
import * as lonely from './lonely.js';
import { upstream } from './upstream.js';
import { controller, demo, stopAll } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PICTURES = process.env.KVATLAS_SCREENSHOTS ? join(ROOT, 'docs/screenshots') : join(process.env.BROWSER_MODULES, 'screenshots');
const begin = Date.now();

/** Both themes, both widths: no serious violation, nothing wider than the screen, a picture of each. */
async function look(page, name) {
  for (const theme of ['light', 'dark']) {
    if (await page.evaluate(() => document.documentElement.dataset.theme) !== theme) {
      if (await page.getByRole('dialog').count() === 0) await page.locator('#theme').click();
      else await page.evaluate((wanted) => { document.documentElement.dataset.theme = wanted; }, theme);
    }
    assert.deepEqual(await violations(page), [], `${name}, ${theme}`);
    for (const [size, label] of [[WIDE, 'wide'], [NARROW, 'narrow']]) {
      await page.setViewportSize(size);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${name} is ${over} px wider than a screen of ${size.width}`);
      await page.screenshot({ path: join(PICTURES, `${name}-${theme}-${label}.png`) });
    }
    await page.setViewportSize(WIDE);
  }
  await page.evaluate(() => { document.documentElement.dataset.theme = 'light'; localStorage.setItem('theme', 'light'); });
}

async function step(name, work, t) {
  const start = Date.now();
  process.stdout.write(`browser: ${name} ... `);
  await work(t);
  assert.deepEqual(t.complaints, [], 'complaints on the console');
  console.log(`ok, ${((Date.now() - start) / 1000).toFixed(1)} s`);
}

async function run(browser) {
  const fleet = await demo();
  const { page, complaints, expect } = await browser.page();
  const t = { page, complaints, expect, url: fleet.url, prompt: fleet.prompt, process: fleet, look: (name) => look(page, name) };
  try {
    for (const name of ['overview', 'fleet', 'lookup', 'actions', 'sync', 'diagnose', 'metrics', 'keyboard', 'api', 'overview_later']) await step(name.replaceAll('_', ' '), pages[name], t);
    const alone = await controller();
    const empty = { ...t, url: alone.url, process: alone, controller: alone };
    for (const name of ['empty_states', 'an_engine_appears', 'the_controller_goes']) await step(name.replaceAll('_', ' '), lonely[name], empty);
    await step('upstream\'s dashboard', upstream, { ...t, ...await browser.page() });
  } catch (error) {
    await page.screenshot({ path: join(PICTURES, 'failed.png') }).catch(() => {});
    throw error;
  }
}

await mkdir(PICTURES, { recursive: true });
const browser = await open();
try {
  await run(browser);
  console.log(`browser: all pages work, ${((Date.now() - begin) / 1000).toFixed(0)} s; pictures in ${PICTURES}`);
} catch (error) {
  console.log('FAILED');
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
  await stopAll();
}
// Traffic that a failed step left running must not keep the process.
process.exit();
