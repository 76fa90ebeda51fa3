// Every page of the dashboard in Chromium against live controllers. Ends with 1 at the first failure.
// An argument picks the groups of that name.
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open, violations, WIDE, NARROW } from './browser.js';
import * as pages from './pages.js';
import * as lonely from './lonely.js';
import * as commands from './commands.js';
import * as tokens from './tokens.js';
import { many } from './many.js';
import * as walk from './walk.js';
import { upstream } from './upstream.js';
import { controller, startDemo, stopAll } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PICTURES = join(process.env.BROWSER_MODULES, 'screenshots');
const DOCS = join(ROOT, 'docs/screenshots');
/** Pictures that are committed: every page, and between them both widths and both themes of the main ones. */
const SHOWN = [
  ...['overview', 'lookup'].flatMap((page) => ['light-wide', 'dark-wide', 'light-narrow', 'dark-narrow'].map((kind) => `${page}-${kind}`)),
  ...['fleet', 'actions', 'sync', 'diagnose', 'metrics'].flatMap((page) => [`${page}-light-wide`, `${page}-dark-narrow`]),
  'confirm-light-wide', 'empty-light-wide', 'token-dark-narrow', 'api-light-wide',
];
const begin = Date.now();

/** What is wider than the box that was made for it, so that it lies over something else or is cut off. */
function spilling() {
  const boxes = [...document.querySelectorAll('td, th, button, .button, .badge, label, h1, h2, h3, .value, .note, .line > *, .notice, .plot .tip, legend, #nav a')];
  const wide = boxes.filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline' && !one.closest('thead'));
  return wide.map((one) => `${one.tagName.toLowerCase()}.${one.className} ${one.scrollWidth} > ${one.clientWidth}: ${one.textContent.slice(0, 60)}`);
}

/**
 * Both themes, both widths: nothing wider than the screen, a picture of each. Axe looks at the light
 * wide one and at the dark narrow one, so that it sees every layout and every color.
 */
async function look(page, name) {
  for (const theme of ['light', 'dark']) {
    if (await page.evaluate(() => document.documentElement.dataset.theme) !== theme) {
      if (await page.getByRole('dialog').count() === 0) await page.locator('#theme').click();
      else await page.evaluate((wanted) => { document.documentElement.dataset.theme = wanted; }, theme);
    }
    for (const [size, label] of [[WIDE, 'wide'], [NARROW, 'narrow']]) {
      await page.setViewportSize(size);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${name} is ${over} px wider than a screen of ${size.width}`);
      assert.deepEqual(await page.evaluate(spilling), [], `${name}, ${theme}, ${label}: text outside its box`);
      if ((theme === 'light') === (size === WIDE)) assert.deepEqual(await violations(page), [], `${name}, ${theme}, ${label}`);
      await picture(page, `${name}-${theme}-${label}`);
    }
    await page.setViewportSize(WIDE);
  }
  if (await page.getByRole('dialog').count() === 0) await page.locator('#theme').click();
  else await page.evaluate(() => { document.documentElement.dataset.theme = 'light'; localStorage.setItem('theme', 'light'); });
}

/** A picture for people who look into .cache; with `make screenshots` also one for docs/, if it is among them. */
async function picture(page, name) {
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
  if (!process.env.KVATLAS_SCREENSHOTS || !SHOWN.includes(name)) return;
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 82 });
  await session.detach();
  await writeFile(join(DOCS, `${name}.webp`), Buffer.from(data, 'base64'));
}

async function step(name, work, t) {
  const start = Date.now();
  process.stdout.write(`browser: ${name} ... `);
  await work(t);
  assert.deepEqual(t.complaints, [], 'complaints on the console');
  console.log(`ok, ${((Date.now() - start) / 1000).toFixed(1)} s`);
}

/** What belongs together: steps on one page of the browser, one after the other. */
const GROUPS = [
  ['a live demo', async (t) => {
    const fleet = await startDemo('--ranks', '3');
    return { ...t, url: fleet.url, prompt: fleet.prompt };
  }, [pages.overview, pages.fleet, pages.lookup, pages.actions, pages.sync, pages.diagnose, pages.metrics, pages.keyboard, pages.api, pages.overview_later]],
  ['nobody there', async (t) => {
    const alone = await controller();
    return { ...t, url: alone.url, controller: alone };
  }, [lonely.empty_states, lonely.an_engine_appears, lonely.the_controller_goes]],
  ['commands', async (t) => t, [commands.a_move_moves, commands.progress_is_live, commands.every_command, commands.refused]],
  ['troubles', async (t) => t, [lonely.troubles_are_told, lonely.limits_are_told]],
  ['tokens', async (t) => t, [tokens.both_roles]],
  ['a token for commands', async (t) => t, [tokens.admin_only]],
  ['2,000 workers', async (t) => t, [many]],
  ['a newcomer’s walk', async (t) => t, [walk.readme_says_so, walk.clone_and_make_run, walk.open_the_page, walk.start_the_demo_and_look_up, walk.move, walk.restart]],
  ['upstream’s own page', async (t) => t, [upstream]],
];

async function run(browser, wanted) {
  for (const [group, begin, steps] of GROUPS.filter(([name]) => !wanted || name.includes(wanted))) {
    const opened = await browser.page();
    const t = await begin({ ...opened, look: (name) => look(opened.page, name) });
    try {
      for (const work of steps) await step(`${group}: ${work.name.replaceAll('_', ' ')}`, work, t);
    } catch (error) {
      await opened.page.screenshot({ path: join(PICTURES, 'failed.png') }).catch(() => {});
      throw error;
    }
    await opened.page.close();
    await stopAll();
  }
}

for (const directory of [PICTURES, DOCS]) await mkdir(directory, { recursive: true });
const browser = await open();
try {
  await run(browser, process.argv[2]);
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
