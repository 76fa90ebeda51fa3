// Chromium, and pages that remember what went wrong on them.
import { createRequire } from 'node:module';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const load = createRequire(join(process.env.BROWSER_MODULES, 'package.json'));
const { chromium } = load('playwright-core');
const AXE = load.resolve('axe-core/axe.min.js');

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
export const WIDE = { width: 1280, height: 900 };
export const NARROW = { width: 390, height: 844 };
export const PATIENCE = 20_000;

/** A browser with a fresh profile; only loopback is reachable from its pages. */
export async function open() {
  const profile = await mkdtemp(join(tmpdir(), 'kvatlas-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: FLAGS, viewport: WIDE, colorScheme: 'light', locale: 'en-US', timezoneId: 'UTC',
  });
  context.setDefaultTimeout(PATIENCE);
  await context.route((url) => url.hostname !== '127.0.0.1', (route) => route.abort());
  return {
    page: () => watched(context),
    close: async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** A page whose complaints are collected; those expected at the time are left out. */
async function watched(context) {
  const page = await context.newPage();
  const complaints = [];
  let expected = null;
  const note = (text) => { if (!expected?.test(text)) complaints.push(text); };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) note(`${message.text()} (${message.location().url})`); });
  page.on('pageerror', (error) => note(String(error)));
  return { page, complaints, expect: (pattern) => { expected = pattern; } };
}

/** Rows and sections of which a few stand for all: axe takes its time for each. */
const REPEATED = ['tbody tr:nth-child(n+6)', '.operation:nth-of-type(n+5)', '.line:nth-child(n+4)'];

/** What axe-core finds serious or critical, in words. */
export async function violations(page) {
  // Through the debugger, so that the page's content security policy does not matter.
  if (!await page.evaluate(() => 'axe' in globalThis)) {
    await page.evaluate(await readFile(AXE, 'utf8'));
  }
  const { violations: found } = await page.evaluate((exclude) => globalThis.axe.run({ exclude }, { resultTypes: ['violations'] }), REPEATED);
  return found.filter((one) => ['serious', 'critical'].includes(one.impact))
    .map((one) => `${one.id} (${one.impact}): ${one.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3).join(' | ')}`);
}

/**
 * Asks in the page, with `argument`, until the answer is truthy, and gives it. Not waitForFunction:
 * that evaluates text inside the page, which the page's policy forbids.
 */
export async function eventually(page, ask, argument) {
  for (const deadline = Date.now() + PATIENCE; ;) {
    const answer = await page.evaluate(ask, argument);
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`never came true in ${PATIENCE / 1000} s: ${ask}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
