// A controller nobody registers with, one engine that comes, and the end of the controller.
import { engine, stop } from './processes.js';

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
