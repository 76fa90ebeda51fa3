// Commands between two engines that nobody else talks to: what changes, what takes long, what is refused.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './browser.js';
import { command, open } from './pages.js';
import { controller, engine } from './processes.js';

const QUIET = ['--requests-per-second', '0', '--cpu-chunks', '500', '--disk-chunks', '0'];
const P2P = { LMCACHE_ENABLE_P2P: 'True', LMCACHE_P2P_HOST: '127.0.0.1', LMCACHE_P2P_INIT_PORTS: '0,0' };

/** How far the prefix of the prompt reaches in every instance, as Lookup shows it. */
async function reach(t, tokens) {
  await open(t, 'lookup', 'Lookup');
  await t.page.getByLabel('Tokens of the prompt').fill(tokens.join(' '));
  await t.page.getByRole('button', { name: 'Look up' }).click();
  await t.page.getByText('What this means').waitFor();
  return t.page.evaluate(() => Object.fromEntries([...document.querySelectorAll('.holder')].map((one) => [one.querySelector('h3').textContent, Number(one.querySelector('b').textContent.split(' ')[0].replace(/,/g, ''))])));
}

/** Moves a prompt by clicking, from the strip of the one who holds it. */
export async function a_move_moves(t) {
  const { page } = t;
  const directory = await mkdtemp(join(tmpdir(), 'kvatlas-browser-'));
  const ours = await controller();
  const prompt = join(directory, 'prompt.json');
  await engine(ours, 'giver', [...QUIET, '--seed', '1', '--warm-up', '40', '--write-prompt', prompt], P2P);
  t.taker = await engine(ours, 'taker', [...QUIET, '--seed', '2'], P2P);
  await engine(ours, 'alone', [...QUIET, '--worker-ports', '0']);
  await page.goto(`${ours.url}/#fleet`);
  await eventually(page, () => document.querySelectorAll('main tbody tr').length === 5 && Number(document.querySelector('main tbody tr:nth-child(2) td:nth-child(4)').textContent) > 0);
  const { tokens } = JSON.parse(await readFile(prompt, 'utf8'));
  await rm(directory, { recursive: true });
  const whole = Math.floor(tokens.length / 256) * 256;
  assert.deepEqual(await reach(t, tokens), { giver: whole });
  Object.assign(t, { tokens, whole });
  await page.getByRole('button', { name: 'Move… giver' }).click();
  await page.locator('h1', { hasText: 'Actions' }).waitFor();
  assert.ok(await page.getByRole('radio', { name: 'move', exact: true }).isChecked());
  assert.equal(await page.getByRole('combobox', { name: 'Instance', exact: true }).inputValue(), 'giver');
  await page.getByRole('combobox', { name: 'To instance' }).selectOption('taker');
  await page.getByLabel('Keep the original').uncheck();
  await page.getByRole('button', { name: 'Continue' }).click();
  const dialog = page.getByRole('dialog');
  assert.match(await dialog.innerText(), new RegExp(`Move ${tokens.length.toLocaleString('en-US')} tokens from LocalCPUBackend of giver to LocalCPUBackend of taker\\.`));
  await dialog.getByRole('button', { name: 'Move' }).click();
  await page.locator('.card', { hasText: 'move giver → taker' }).locator('.top .badge.good', { hasText: 'finished' }).waitFor();
  // The map learns of it from the engines' own reports.
  for (let tries = 0; ; tries += 1) {
    const now = await reach(t, tokens);
    if (now.taker === whole && !now.giver) break;
    assert.ok(tries < 40, `still ${JSON.stringify(now)}`);
  }
}

/** A worker that takes its time is shown as such, and as done once it is. */
export async function progress_is_live(t) {
  const { page } = t;
  await open(t, 'actions', 'Actions');
  await command(page, 'health');
  await page.getByRole('combobox', { name: 'Instance', exact: true }).selectOption('taker');
  t.taker.child.kill('SIGSTOP');
  await page.getByRole('button', { name: 'Continue' }).click();
  const card = page.locator('.card', { hasText: 'health taker' });
  await card.locator('.top .badge.busy', { hasText: 'running' }).waitFor();
  for (const rank of [0, 1]) await card.locator('li', { hasText: `taker:${rank}` }).getByText('running').waitFor();
  const clock = await card.locator('.top .small').innerText();
  assert.match(clock, /^0 of 2 workers/);
  await eventually(page, (was) => ![...document.querySelectorAll('.card .top .small')].some((one) => one.innerText === was), clock);
  t.taker.child.kill('SIGCONT');
  await card.locator('.top .badge.good', { hasText: 'finished' }).waitFor();
  for (const rank of [0, 1]) await card.locator('li', { hasText: `taker:${rank}` }).getByText('finished').waitFor();
}

/** The other commands, each in its own form: what is confirmed, what the workers say, what changes. */
export async function every_command(t) {
  const { page } = t;
  const many = t.whole.toLocaleString('en-US');
  const give = async (name, instance, sentence, said) => {
    await open(t, 'actions', 'Actions');
    await command(page, name);
    await page.getByRole('combobox', { name: 'Instance', exact: true }).selectOption(instance);
    await page.getByRole('combobox', { name: 'Location', exact: true }).selectOption('LocalCPUBackend');
    assert.equal(await page.getByLabel('Tokens').count(), name === 'clear' ? 0 : 1, `${name} asks for what it takes`);
    assert.equal(await page.getByLabel('Method').count(), /compress/.test(name) ? 1 : 0);
    if (name !== 'clear') await page.getByLabel('Tokens').fill(t.tokens.slice(0, t.whole).join(' '));
    await page.getByRole('button', { name: 'Continue' }).click();
    const dialog = page.getByRole('dialog');
    assert.ok((await dialog.innerText()).includes(sentence), await dialog.innerText());
    await dialog.getByRole('button', { name: name[0].toUpperCase() + name.slice(1) }).click();
    const card = page.locator('.card', { hasText: `${name} ${instance}` });
    await card.locator('.top .badge.good', { hasText: 'finished' }).waitFor();
    for (const rank of [0, 1]) await card.locator('li', { hasText: `${instance}:${rank}` }).getByText(said).waitFor();
    await page.locator('main tbody tr', { hasText: name }).first().waitFor();
  };
  await give('compress', 'taker', `Compress ${many} tokens in LocalCPUBackend of taker with cachegen`, `${many} tokens`);
  await give('decompress', 'taker', `Decompress ${many} tokens in LocalCPUBackend of taker with cachegen`, `${many} tokens`);
  await give('pin', 'taker', `Pin ${many} tokens in LocalCPUBackend of taker`, `${many} tokens`);
  // What is pinned stays; what is not goes, and the engine's own reports take it out of the map.
  await give('clear', 'taker', 'Throw away everything in LocalCPUBackend of taker', /\d tokens/);
  assert.deepEqual(await reach(t, t.tokens), { taker: t.whole });
  await give('clear', 'giver', 'Throw away everything in LocalCPUBackend of giver. This cannot be undone.', /[1-9][\d,]* tokens/);
  await open(t, 'fleet', 'Fleet');
  await eventually(page, () => [...document.querySelectorAll('main tbody tr')].filter((row) => /^giver/.test(row.innerText) && row.cells[3].textContent === '0').length === 2);
  await open(t, 'actions', 'Actions');
}

/** What the controller refuses is said in its own words. */
export async function refused(t) {
  const { page } = t;
  t.expect(/status of 409/);
  await command(page, 'move');
  await page.getByRole('combobox', { name: 'Instance', exact: true }).selectOption('giver');
  await page.getByRole('combobox', { name: 'To instance' }).selectOption('alone');
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('dialog').getByRole('button', { name: /Copy|Move/ }).click();
  await page.getByRole('alert').getByText('alone').waitFor();
  t.expect(null);
}
