// What every page of the dashboard must do on a live fleet. `t` has the page, its address, what is
// expected of the console, and `look` (accessibility and screenshots).
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { eventually } from './browser.js';

const open = async ({ page }, name, title) => {
  await page.locator('#nav a', { hasText: new RegExp(`^${title}$`) }).click();
  await page.locator('h1', { hasText: title }).waitFor();
  assert.equal(await page.evaluate(() => location.hash), `#${name}`);
  assert.equal(await page.title(), `${title} · KVAtlas`);
};

const cell = (page, row, column) => page.locator(`main tbody tr:nth-child(${row}) td:nth-child(${column})`).first().innerText();

export async function overview(t) {
  const { page } = t;
  await page.goto(`${t.url}/`);
  const value = (label) => `[...document.querySelectorAll('.card')].find((card) => card.querySelector('.label')?.textContent === '${label}')?.querySelector('.value')?.textContent`;
  await eventually(page, `${value('Workers')} === '12' && ${value('Instances')} === '4'`);
  assert.equal(await page.locator('#link').innerText(), 'live');
  const keys = await page.evaluate(value('Keys'));
  assert.notEqual(keys, '0');
  await eventually(page, `${value('Keys')} !== ${JSON.stringify(keys)}`);
  await eventually(page, `document.querySelectorAll('.charts svg .line').length >= 3`);
  await eventually(page, `parseFloat(${value('Operations')}) > 0`);
  // Lookups made elsewhere show up: rate, hits and latency.
  const body = await readFile(t.prompt, 'utf8');
  const traffic = setInterval(() => fetch(`${t.url}/lookup`, { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => {}), 50);
  try {
    await eventually(page, `parseFloat(${value('Lookups')}) > 0 && /≤/.test(${value('Lookup p50 / p99')})`);
    await eventually(page, `document.querySelectorAll('.charts svg').length === 6`);
    await t.look('overview');
  } finally {
    clearInterval(traffic);
  }
}

export async function fleet(t) {
  const { page } = t;
  await open(t, 'fleet', 'Fleet');
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 12);
  assert.equal(await cell(page, 1, 1), 'demo-1:0');
  assert.match(await cell(page, 1, 3), /^alive/);
  assert.match(await cell(page, 1, 5), /LocalCPUBackend \d+/);
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
  await page.getByText('none of 12 matches').waitFor();
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
}

export async function lookup(t) {
  const { page } = t;
  await open(t, 'lookup', 'Lookup');
  const go = page.getByRole('button', { name: 'Look up' });
  await page.getByLabel('Tokens of the prompt').fill('no numbers here');
  await go.click();
  await page.getByRole('alert').getByText('there is no integer').waitFor();
  const body = JSON.parse(await readFile(t.prompt, 'utf8'));
  // Four times as long: the second half is held by nobody.
  await page.getByLabel('Tokens of the prompt').fill(JSON.stringify({ tokens: [...body.tokens, ...body.tokens] }));
  await go.click();
  await page.locator('section .strip i.in').first().waitFor();
  const chunks = Math.ceil(body.tokens.length / 256);
  const strip = page.locator('section').first();
  assert.equal(await strip.locator('.strip i').count(), 2 * chunks);
  assert.ok(await strip.locator('.strip i.in:not(.out)').count() > 0);
  assert.equal(await strip.locator('.strip i.end').count(), 1);
  assert.match(await strip.locator('.strip i.in').first().getAttribute('title'), /rank \d in LocalCPUBackend/);
  assert.match(await strip.locator('h2').innerText(), new RegExp(`^demo-\\d: [1-9][\\d,]* of ${(2 * body.tokens.length).toLocaleString('en-US')} tokens`));
  assert.ok(await page.locator('ul.reasons li').count() > 0);
  await t.look('lookup');
  // Nobody holds this one, and the page says why.
  await page.getByLabel('Tokens of the prompt').fill(Array.from({ length: 600 }, (_, i) => i + 5).join(' '));
  await go.click();
  await eventually(page, () => document.querySelectorAll('section .strip').length === 0 && document.querySelectorAll('ul.reasons li').length > 0);
}

export async function actions(t) {
  const { page } = t;
  await open(t, 'actions', 'Actions');
  await page.getByText('No command has been given yet.').waitFor();
  const send = page.getByRole('button', { name: 'Continue' });
  const dialog = page.getByRole('dialog');
  const { tokens } = JSON.parse(await readFile(t.prompt, 'utf8'));

  await page.getByRole('combobox', { name: 'Command', exact: true }).selectOption('health');
  await send.click();
  await page.locator('.card', { hasText: 'health demo-1' }).getByText('finished').first().waitFor();

  await page.getByRole('combobox', { name: 'Command', exact: true }).selectOption('move');
  await page.getByRole('combobox', { name: 'Instance', exact: true }).selectOption('demo-1');
  await page.getByRole('combobox', { name: 'Location', exact: true }).selectOption('LocalCPUBackend');
  await page.getByRole('combobox', { name: 'To instance', exact: true }).selectOption('demo-2');
  await page.getByRole('combobox', { name: 'To location', exact: true }).selectOption('LocalCPUBackend');
  await page.getByLabel('Tokens').fill(tokens.join(', '));
  await page.getByLabel('Keep the original').check();
  await send.click();
  assert.match(await dialog.innerText(), new RegExp(`Copy ${tokens.length.toLocaleString('en-US')} tokens from LocalCPUBackend of demo-1 to LocalCPUBackend of demo-2`));
  await t.look('actions-confirm');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await page.locator('.card', { hasText: 'move demo-1' }).count(), 0);
  await send.click();
  await dialog.getByRole('button', { name: 'Do it' }).click();
  await page.locator('.card', { hasText: 'move demo-1 → demo-2' }).locator('strong + .good', { hasText: 'finished' }).waitFor();
  const row = page.locator('main tbody tr', { hasText: 'demo-1 → demo-2' });
  await row.getByText('finished').first().waitFor();
  await row.locator('summary').click();
  await row.locator('li', { hasText: 'demo-1:0' }).waitFor();
  await t.look('actions');

  // What the page refuses, and what the controller refuses.
  await page.getByRole('combobox', { name: 'Command', exact: true }).selectOption('pin');
  await page.getByLabel('Tokens').fill('');
  await send.click();
  await page.getByRole('alert').getByText('needs the tokens').waitFor();
  t.expect(/status of 4\d\d/);
  await page.getByLabel('Tokens').fill('99999999999999999999');
  await send.click();
  await dialog.getByRole('button', { name: 'Do it' }).click();
  await eventually(page, () => /tokens/.test(document.querySelector('[role=alert]')?.textContent) && !/needs the tokens/.test(document.querySelector('[role=alert]').textContent));
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
  await page.getByText('nothing is wrong with the fleet').waitFor();
  assert.match(await page.locator('main tbody').innerText(), /builtin\s+absent\s+256\s+demo-1/);
  await page.getByRole('button', { name: 'Look again' }).click();
  await page.getByText('nothing is wrong with the fleet').waitFor();
  await t.look('diagnose');
}

export async function metrics(t) {
  const { page } = t;
  await open(t, 'metrics', 'Metrics');
  const value = `[...document.querySelectorAll('main tbody tr')].find((row) => /operations/.test(row.cells[0].textContent) && Number(row.cells[1].textContent) > 0)?.cells[1].textContent`;
  const before = await eventually(page, value);
  await eventually(page, `${value} !== ${JSON.stringify(before)}`);
  await t.look('metrics');
  const all = await page.locator('main tbody tr').count();
  await page.getByRole('searchbox').fill('lookup');
  await eventually(page, (were) => { const rows = [...document.querySelectorAll('main tbody tr')]; return rows.length > 0 && rows.length < were && rows.every((row) => /lookup/.test(row.cells[0].textContent)); }, all);
}
