// What every page of the dashboard must do on a live fleet. `t` has the page, its address, what is
// expected of the console, and `look` (accessibility and screenshots).
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { eventually } from './browser.js';

/** Goes to a page by the menu. */
export const open = async ({ page }, name, title) => {
  await page.locator('#nav a', { hasText: new RegExp(`^${title}$`) }).click();
  await page.locator('h1', { hasText: title }).waitFor();
  assert.equal(await page.evaluate(() => location.hash), `#${name}`);
  assert.equal(await page.title(), `${title} · KVAtlas`);
  assert.equal(await page.locator('#nav a[aria-current=page]').innerText(), title);
};

const cell = (page, row, column) => page.locator(`main tbody tr:nth-child(${row}) td:nth-child(${column})`).first().innerText();

/** The number in the tile of that name. */
export const tile = (label) => `[...document.querySelectorAll('.card')].find((card) => card.querySelector('.label')?.textContent === '${label}')?.querySelector('.value')?.textContent`;

/** Questions from elsewhere, until the function given back is called. */
export function traffic({ url }, body) {
  const timer = setInterval(() => fetch(`${url}/lookup`, { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => {}), 50);
  return () => clearInterval(timer);
}

export async function overview(t) {
  const { page } = t;
  await page.goto(`${t.url}/`);
  await eventually(page, `${tile('Workers')} === '12'`);
  await page.getByText('All 12 workers are well.').waitFor();
  assert.equal(await page.locator('#link').innerText(), 'live');
  const keys = await page.evaluate(tile('Keys'));
  await eventually(page, `${tile('Keys')} !== ${JSON.stringify(keys)} && ${tile('Keys')} !== '0'`);
  await eventually(page, `document.querySelectorAll('.plot .line[d^=M]').length >= 3`);
  await eventually(page, `parseFloat(${tile('Operations')}) > 0`);
  await page.locator('.card', { hasText: 'Instances by keys' }).getByText('demo-4').waitFor();
  await page.getByText('None yet.').waitFor();
  // Lookups made elsewhere show up: rate, hits and latency.
  t.stopTraffic = traffic(t, await readFile(t.prompt, 'utf8'));
  await eventually(page, `parseFloat(${tile('Lookups')}) > 0 && /≤/.test(${tile('Lookup latency')})`);
  await eventually(page, `document.querySelectorAll('.plot .none:not([hidden])').length === 0`);
  // Pointing at a chart says what was when; a longer time can be shown.
  await page.locator('.plot').first().hover();
  await page.locator('.plot .tip', { hasText: /^[\d,]+ at \d+:\d\d:\d\d/ }).waitFor();
  await page.mouse.move(0, 0);
  await page.getByRole('button', { name: '15 min' }).click();
  await page.locator('[aria-pressed=true]', { hasText: '15 min' }).waitFor();
  await page.getByRole('button', { name: '5 min', exact: true }).click();
}

/** With what has happened since: how it looks on a busy day. */
export async function overview_later(t) {
  const { page } = t;
  await open(t, 'overview', 'Overview');
  await page.locator('.card', { hasText: 'Last commands' }).getByText('move demo-1 → demo-2').waitFor();
  await eventually(page, `document.querySelectorAll('.plot .none:not([hidden])').length === 0 && document.querySelectorAll('.rows .bar').length === 4`);
  await t.look('overview');
  t.stopTraffic();
}

export async function fleet(t) {
  const { page } = t;
  await open(t, 'fleet', 'Fleet');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 12);
  assert.equal(await cell(page, 1, 1), 'demo-1:0');
  assert.match(await cell(page, 1, 3), /^alive/);
  assert.match(await cell(page, 1, 5), /LocalCPUBackend\s+\d+/);
  const before = await cell(page, 1, 3);
  await eventually(page, (was) => document.querySelector('main tbody td:nth-child(3)').innerText !== was, before);
  // Sorted by keys, most first: the controller sorts, the page says so.
  const keys = () => page.locator('main tbody td:nth-child(4)').evaluateAll((all) => all.map((one) => Number(one.textContent.replaceAll(',', ''))));
  await page.locator('th button', { hasText: 'Keys' }).click();
  await page.locator('th[aria-sort=descending]', { hasText: 'Keys' }).waitFor();
  const sorted = await keys();
  assert.deepEqual(sorted, [...sorted].sort((a, b) => b - a));
  await page.locator('th button', { hasText: 'Keys' }).click();
  await page.locator('th[aria-sort=ascending]', { hasText: 'Keys' }).waitFor();
  await page.locator('th button', { hasText: 'Worker' }).click();
  await t.look('fleet');
  await page.getByRole('searchbox').fill('demo-3');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 3);
  assert.match(await page.locator('.pager').innerText(), /1 to 3 of 3 \(12 in all\)/);
  await page.getByRole('searchbox').fill('nobody');
  await page.getByText('None of 12 matches.').waitFor();
  await page.getByRole('searchbox').fill('');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 12);
  // Twelve workers on pages of ten.
  await page.getByLabel('Rows').selectOption('10');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 10);
  await page.getByRole('button', { name: 'Next' }).click();
  await page.getByText('11 to 12 of 12').waitFor();
  assert.equal(await cell(page, 2, 1), 'demo-4:2');
  assert.ok(await page.getByRole('button', { name: 'Next' }).isDisabled());
  await page.getByRole('button', { name: 'Previous' }).click();
  await page.getByText('1 to 10 of 12').waitFor();
  await page.getByLabel('Rows').selectOption('50');
  // By instance, and from there to a command.
  await page.getByRole('button', { name: 'Instances' }).click();
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 4);
  assert.match(await page.locator('main tbody tr', { hasText: 'demo-3' }).innerText(), /demo-3\s+3\s+[1-9]/);
  await page.getByRole('button', { name: 'Command demo-3' }).click();
  await page.locator('h1', { hasText: 'Actions' }).waitFor();
  await eventually(page, () => [...document.querySelectorAll('select')].some((one) => one.value === 'demo-3'));
}

export async function lookup(t) {
  const { page } = t;
  await open(t, 'lookup', 'Lookup');
  const go = page.getByRole('button', { name: 'Look up' });
  await page.getByLabel('Tokens of the prompt').fill('no numbers here');
  await go.click();
  await page.getByRole('alert').getByText('There is no integer').waitFor();
  const body = JSON.parse(await readFile(t.prompt, 'utf8'));
  // Four times as long: the second half is held by nobody.
  await page.getByLabel('Tokens of the prompt').fill(JSON.stringify({ tokens: [...body.tokens, ...body.tokens] }));
  await go.click();
  await page.getByText('2,048 tokens').first().waitFor();
  await page.locator('section .strip i.in').first().waitFor();
  const chunks = Math.ceil(body.tokens.length / 256);
  const strip = page.locator('section.holder').first();
  assert.equal(await strip.locator('.strip i').count(), 2 * chunks);
  assert.ok(await strip.locator('.strip i.in:not(.out)').count() > 0);
  assert.equal(await strip.locator('.strip i.end').count(), 1);
  assert.match(await strip.locator('.strip i.in').first().getAttribute('title'), /rank \d in LocalCPUBackend/);
  assert.match(await strip.innerText(), new RegExp(`^demo-\\d\\s+[1-9][\\d,]* of ${(2 * body.tokens.length).toLocaleString('en-US')} tokens`));
  await page.locator('.notice', { hasText: 'holds the first' }).waitFor();
  assert.equal(await page.evaluate(tile('Longest prefix')), '50 %');
  await t.look('lookup');
  // Nobody holds this one, and the page says why.
  await page.getByLabel('Tokens of the prompt').fill(Array.from({ length: 600 }, (_, i) => i + 5).join(' '));
  await go.click();
  await page.locator('.notice.warn', { hasText: 'nobody holds this prompt' }).waitFor();
  assert.equal(await page.locator('.strip').count(), 0);
  // What was typed stays while other pages are looked at.
  await open(t, 'sync', 'Sync');
  await open(t, 'lookup', 'Lookup');
  assert.match(await page.getByLabel('Tokens of the prompt').inputValue(), /^5 6 7/);
}

/** Chooses a command on the Actions page. */
export const command = (page, name) => page.getByRole('radio', { name, exact: true }).check();

export async function actions(t) {
  const { page } = t;
  await open(t, 'actions', 'Actions');
  await page.getByText('No command has been given yet').waitFor();
  const send = page.getByRole('button', { name: 'Continue' });
  const dialog = page.getByRole('dialog');
  const pick = (name, value) => page.getByRole('combobox', { name, exact: true }).selectOption(value);
  const { tokens } = JSON.parse(await readFile(t.prompt, 'utf8'));

  await command(page, 'health');
  await pick('Instance', 'demo-1');
  await send.click();
  await page.locator('.card', { hasText: 'health demo-1' }).getByText('finished').first().waitFor();

  await command(page, 'move');
  await pick('Location', 'LocalCPUBackend');
  await pick('To instance', 'demo-1');
  await pick('To location', 'LocalCPUBackend');
  await send.click();
  await page.getByRole('alert').getByText('Choose another instance').waitFor();
  await pick('To instance', 'demo-2');
  await page.getByLabel('Tokens').fill(tokens.join(', '));
  await page.getByLabel('Keep the original').check();
  await send.click();
  assert.match(await dialog.innerText(), new RegExp(`Copy ${tokens.length.toLocaleString('en-US')} tokens from LocalCPUBackend of demo-1 to LocalCPUBackend of demo-2`));
  await t.look('confirm');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await page.locator('.card', { hasText: 'move demo-1' }).count(), 0);
  await send.click();
  await dialog.getByRole('button', { name: 'Copy' }).click();
  const card = page.locator('.card', { hasText: 'move demo-1 → demo-2' });
  await card.locator('.top .badge.good', { hasText: 'finished' }).waitFor();
  for (const rank of [0, 1, 2]) await card.locator('li', { hasText: `demo-1:${rank}` }).getByText(`${tokens.length.toLocaleString('en-US')} tokens`).waitFor();
  const row = page.locator('main tbody tr', { hasText: 'demo-1 → demo-2' });
  await row.getByText('finished').first().waitFor();
  await row.locator('summary').click();
  await row.locator('li', { hasText: 'demo-1:0' }).waitFor();
  await t.look('actions');

  // What the page refuses, and what the controller refuses.
  await command(page, 'pin');
  await page.getByLabel('Tokens').fill('');
  await send.click();
  await page.getByRole('alert').getByText('needs the tokens').waitFor();
  t.expect(/status of 4\d\d/);
  await page.getByLabel('Tokens').fill('99999999999999999999');
  await send.click();
  await dialog.getByRole('button', { name: 'Pin' }).click();
  await eventually(page, () => [...document.querySelectorAll('[role=alert]')].some((one) => /tokens/.test(one.textContent) && !/needs the tokens/.test(one.textContent)));
  t.expect(null);
}

export async function sync(t) {
  const { page } = t;
  await open(t, 'sync', 'Sync');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length >= 12);
  assert.match(await page.locator('main tbody').innerText(), /demo-1:0/);
  await t.look('sync');
}

export async function diagnose(t) {
  const { page } = t;
  await open(t, 'diagnose', 'Diagnose');
  await page.getByText('Nothing is wrong with the fleet').waitFor();
  await eventually(page, () => /builtin\s+absent\s+256\s+demo-1/.test(document.querySelector('main tbody')?.innerText));
  await page.getByRole('button', { name: 'Look again' }).click();
  await page.getByText('Nothing is wrong with the fleet').waitFor();
  const tokens = page.getByLabel('Tokens of the prompt');
  await tokens.fill('words');
  await page.getByRole('button', { name: 'Why?' }).click();
  await page.getByRole('alert').getByText('There is no integer').waitFor();
  await tokens.fill(await readFile(t.prompt, 'utf8'));
  await page.getByRole('button', { name: 'Why?' }).click();
  await page.locator('.card', { hasText: 'hash schemes tried' }).getByText('confirmed').waitFor();
  await t.look('diagnose');
  await tokens.fill(Array.from({ length: 600 }, (_, i) => i + 5).join(' '));
  await page.getByRole('button', { name: 'Why?' }).click();
  await page.getByText('None of them names a chunk that anybody holds.').waitFor();
}

export async function metrics(t) {
  const { page } = t;
  await open(t, 'metrics', 'Metrics');
  const value = `[...document.querySelectorAll('main tbody tr')].find((row) => /operations/.test(row.cells[0].textContent) && parseFloat(row.cells[1].textContent) > 0)?.cells[1].textContent`;
  const before = await eventually(page, value);
  await eventually(page, `${value} !== ${JSON.stringify(before)} && document.querySelectorAll('.spark path').length > 10`);
  await t.look('metrics');
  const all = await page.locator('main tbody tr').count();
  // "/" goes to the filter.
  await page.locator('h1').click();
  await page.keyboard.press('/');
  await page.keyboard.type('lookup');
  await eventually(page, (were) => { const rows = [...document.querySelectorAll('main tbody tr')]; return rows.length > 0 && rows.length < were && rows.every((row) => /lookup/.test(row.cells[0].textContent)); }, all);
  await page.getByRole('searchbox').fill('nothing like it');
  await page.getByText('metrics matches.').waitFor();
}

/** Without a mouse: past the menu, through it, and a dialog that gives the focus back. */
export async function keyboard(t) {
  const { page } = t;
  await page.goto(`${t.url}/#overview`);
  await page.reload();
  await page.locator('#link.on').waitFor();
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Skip to content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  assert.equal(await page.evaluate(() => location.hash), '#overview');
  await page.locator('#nav a', { hasText: 'Lookup' }).focus();
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Actions');
  await page.keyboard.press('Enter');
  await page.locator('h1', { hasText: 'Actions' }).waitFor();
  await page.getByRole('radio', { name: 'health', exact: true }).focus();
  for (let i = 0; i < 5; i += 1) await page.keyboard.press('ArrowDown');
  assert.ok(await page.getByRole('radio', { name: 'clear', exact: true }).isChecked());
  await page.getByRole('button', { name: 'Continue' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').getByText('This cannot be undone').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  assert.equal(await focused(), 'Continue');
}

/** The description of the endpoints, and a request sent from it. */
export async function api(t) {
  const { page } = t;
  await page.locator('#nav a', { hasText: 'API' }).click();
  await page.locator('h1', { hasText: 'HTTP endpoints' }).waitFor();
  await page.locator('.operation', { hasText: 'POST /lookup/chunks' }).first().waitFor();
  await t.look('api');
  const one = page.locator('.operation', { has: page.locator('h3', { hasText: /^GET \/controller\/key-stats/ }) });
  await one.locator('summary', { hasText: 'Try it' }).click();
  await one.getByRole('button', { name: 'Send' }).click();
  await one.locator('.trial pre', { hasText: '"total_worker_count": 12' }).waitFor();
  await page.locator('#nav a', { hasText: 'Overview' }).click();
  await page.locator('h1', { hasText: 'Overview' }).waitFor();
}
