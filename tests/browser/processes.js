// Processes under test: started on free ports, ended when the test ends.
import { execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BINARY = process.env.KVATLAS_BIN;
const running = new Set();

/** Starts `kvatlas ...` and waits until its output matches `sign`; gives the process and the match. */
export function start(args, sign, environment = {}) {
  const child = spawn(BINARY, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let output = '';
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`kvatlas ${args[0]} said nothing of ${sign} in 30 s:\n${output}`)), 30_000);
    const hear = (text) => {
      output += text;
      const match = output.match(sign);
      if (match) {
        clearTimeout(deadline);
        resolve({ child, match });
      }
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
    child.once('exit', (code) => {
      running.delete(child);
      clearTimeout(deadline);
      reject(new Error(`kvatlas ${args[0]} ended with ${code}:\n${output}`));
    });
  });
}

/** Ends a process and waits for its end. */
export function stop({ child }, signal = 'SIGTERM') {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) { resolve(); return; }
    child.once('exit', resolve);
    child.kill(signal);
  });
}

export async function stopAll() {
  await Promise.all([...running].map((child) => stop({ child })));
}

/** A controller with a simulated fleet: its address, and the file with a prompt that is cached. */
export async function startDemo(...options) {
  const started = await start(['demo', '--port', '0', ...options], /Look at it\s+(http:\S+)\/\n[\s\S]*lookup -f (\S+)/);
  return { ...started, url: started.match[1], prompt: started.match[2] };
}

/** A controller nobody has registered with. */
export async function controller(...options) {
  const ports = JSON.stringify({ pull: 0, reply: 0, heartbeat: 0 });
  const started = await start(['--host', '127.0.0.1', '--port', '0', '--monitor-ports', ports, '--no-state', ...options],
    /listening http=(\S+) pull=(\S+) reply=(\S+) /);
  const [, http, pull, reply] = started.match;
  return { ...started, url: `http://${http}`, http, pull, reply };
}

/** One simulated engine. */
export function engine({ pull, reply }, name, options = ['--warm-up', '10'], environment = {}) {
  return start(['worker', '--instance-id', name, '--pull-url', pull, '--reply-url', reply, ...(options.includes('--worker-ports') ? [] : ['--worker-ports', '0,0']), '--advertise-ip', '127.0.0.1', '--log-level', 'info', ...options], /registered worker=/, environment);
}

/** Workers played by a script here, with LMCache's own messages; returns when it has said everything. */
export function scripted(script, ...args) {
  return promisify(execFile)(join(ROOT, '.cache/interop-venv/bin/python'), [join(ROOT, 'tests/browser', script), ...args.map(String)],
    { env: { ...process.env, PYTHONPATH: join(ROOT, 'tests/interop/stubs'), PYTHONDONTWRITEBYTECODE: '1', LMCACHE_TRACK_USAGE: 'false', LMCACHE_LOG_LEVEL: 'WARNING' } });
}
