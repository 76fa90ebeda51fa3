// A controller nobody registers with, one engine that comes, and the end of the controller; and what a
// fleet in trouble looks like.
import assert from 'node:assert/strict';
import { eventually } from './browser.js';
import { controller, engine, scripted, stop } from './processes.js';

export async function empty_states(t) {
  const { page } = t;
  await page.goto(`${t.url}/`);
  await page.getByText('Nobody is registered yet').waitFor();
  // With our own ports, ready to be copied.
  await page.locator('pre', { hasText: `controller_pull_url: "${t.controller.pull}"` }).waitFor();
  await page.locator('pre', { hasText: `--reply-url ${t.controller.reply}` }).waitFor();
  await t.look('empty');
  for (const [name, text] of [['fleet', 'No worker is registered'], ['actions', 'No instance is registered'], ['diagnose', 'no worker is registered'], ['sync', 'No worker is registered']]) {
    await page.goto(`${t.url}/#${name}`);
    await page.getByText(text).first().waitFor();
  }
}

export async function an_engine_appears(t) {
  const { page } = t;
  await page.goto(`${t.url}/#fleet`);
  await page.getByText('No worker is registered').waitFor();
  t.controller.engine = await engine(t.controller, 'newcomer');
  await page.locator('tr', { hasText: 'newcomer:1' }).waitFor();
}

export async function the_controller_goes(t) {
  const { page } = t;
  await page.goto(`${t.url}/#overview`);
  await page.locator('#link.on').waitFor();
  t.expect(/ERR_|Failed to load|net::/);
  await stop(t.controller);
  await page.locator('#link.off', { hasText: 'offline' }).waitFor();
  await page.getByRole('alert').getByText('The controller does not answer; trying again').waitFor();
  await page.locator('#nav a', { hasText: 'Fleet' }).click();
  await page.getByRole('alert').getByText('is it running, and can this browser reach it?').waitFor();
  await t.look('gone');
  t.expect(null);
}

/** A worker that lost reports, and one in the middle of its full sync: every page says so. */
export async function troubles_are_told(t) {
  const { page } = t;
  const ours = await controller();
  await scripted('trouble.py', ours.pull, ours.reply);
  await page.goto(`${ours.url}/#fleet`);
  const row = (name) => page.locator('main tbody tr', { hasText: name });
  await row('losing:0').getByText('wanted').waitFor();
  assert.equal(await row('losing:0').locator('td').nth(5).innerText(), '1');
  await row('losing:0').getByText('no heartbeat ever').waitFor();
  await row('syncing:0').getByText('syncing, 1 of 4').waitFor();
  // Silence takes its time: the rest of the answer is the controller's own.
  await page.route(/\/fleet\?/, async (route) => {
    const answer = await route.fetch();
    const fleet = await answer.json();
    fleet.workers.forEach((worker) => { worker.silent_s = worker.instance_id === 'losing' ? 45 : 500; });
    await route.fulfill({ response: answer, json: fleet });
  });
  await row('losing:0').getByText('quiet').waitFor();
  await row('losing:0').getByText('45 s ago').waitFor();
  await row('syncing:0').getByText('silent').waitFor();
  await row('syncing:0').getByText('8 min ago').waitFor();
  await page.unroute(/\/fleet\?/);
  await row('syncing:0').getByText('alive').waitFor();
  await page.goto(`${ours.url}/#sync`);
  await row('syncing:0').getByText('1 of 4 batches').waitFor();
  assert.equal(await row('syncing:0').getByRole('progressbar').getAttribute('value'), '1');
  // The most urgent first.
  await eventually(page, () => /^syncing:0/.test(document.querySelector('main tbody tr').innerText));
  await t.look('sync-running');
  await page.goto(`${ours.url}/#overview`);
  await page.locator('.notice.warn', { hasText: 'sequence gap' }).getByRole('link', { name: 'Look closer' }).click();
  await page.locator('.notice.warn', { hasText: 'full syncs are running: syncing:0 LocalCPUBackend (1 of 4 batches)' }).waitFor();
  await t.look('diagnose-trouble');
}

/** A worker whose keys a limit keeps out: every page says so, and what can be done. */
export async function limits_are_told(t) {
  const { page } = t;
  const ours = await controller('--max-keys-per-worker', '3');
  await scripted('greedy.py', ours.pull, ours.reply);
  await page.goto(`${ours.url}/#fleet`);
  const row = (name) => page.locator('main tbody tr', { hasText: name });
  await row('greedy:0').getByText('incomplete').waitFor();
  assert.equal(await row('greedy:0').getByText('in sync').count(), 0);
  await row('modest:0').getByText('in sync').waitFor();
  await t.look('fleet-incomplete');
  // From the worker to what can be done about it.
  await row('greedy:0').getByRole('link', { name: 'incomplete' }).click();
  await page.locator('h1', { hasText: 'Sync' }).waitFor();
  const notice = page.locator('.notice.bad', { hasText: 'max_keys_per_worker is reached: some keys of greedy:0 are not known here' });
  await notice.getByText('What to do: raise max_keys_per_worker').waitFor();
  await eventually(page, () => /^greedy:0\s[\s\S]*incomplete max_keys_per_worker is reached/.test(document.querySelector('main tbody tr').innerText));
  await row('modest:0').getByText('in sync').waitFor();
  await t.look('sync-incomplete');
  await page.goto(`${ours.url}/#overview`);
  await page.locator('.notice.warn', { hasText: 'max_keys_per_worker is reached: keys of greedy:0 are not all known' }).waitFor();
}
