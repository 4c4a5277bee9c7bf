// Compares the time of a verification with that of the npm packages `standardwebhooks` and `svix`.
//
//     node bench/bench.mjs            # prints the table
//     node bench/bench.mjs --check    # a body of 300 bytes only; fails below 3 times the speed
//
// All verify the same delivery, by the system clock, from a plain object of headers. The peers take text,
// or a Buffer that they convert to text; standardwebhooks also parses the JSON, unless told not to. The rounds
// are interleaved, and the fastest round counts: other programs on the machine only add time.
import { createHmac } from 'node:crypto';

import { Verifier } from 'pleo-webhook-verify';
import { Webhook } from 'standardwebhooks';
import { Webhook as SvixWebhook } from 'svix';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const ROUNDS = 41;
const WARM_UP = 5;
const MIN_RATIO = 3;
const ATTEMPTS = 3;

const check = process.argv.includes('--check');

function delivery(size) {
  const body = JSON.stringify({ eventType: 'v1.export-job.created', data: { text: 'x'.repeat(size - 54) } });
  const now = Math.floor(Date.now() / 1000);
  const id = 'msg_p5jXN8AQM9LWM0D4loKWxJek';
  const key = Buffer.from(SECRET.slice('whsec_'.length), 'base64');
  const tag = createHmac('sha256', key).update(`${id}.${now}.${body}`).digest('base64');
  const headers = {
    host: 'hooks.example.com',
    accept: '*/*',
    'user-agent': 'Svix-Webhooks/1.100.0',
    'content-type': 'application/json',
    'content-length': String(body.length),
    'webhook-id': id,
    'webhook-timestamp': String(now),
    'webhook-signature': `v1,${tag}`,
  };
  return { headers, body };
}

const ours = new Verifier(SECRET);
const standard = new Webhook(SECRET);
const svix = new SvixWebhook(SECRET);
const subjects = {
  'this package': (headers, body) => ours.verify(headers, body),
  'this package, JSON parsed': (headers, body) => JSON.parse(ours.verify(headers, body).body),
  'standardwebhooks, JSON not parsed': (headers, body) => standard.verify(body, headers, { jsonParse: false }),
  'standardwebhooks, JSON parsed': (headers, body) => standard.verify(body, headers),
  svix: (headers, body) => svix.verify(body, headers),
};

// Returns the time of each subject in microseconds, in its fastest round.
function measure(headers, body) {
  const times = Object.fromEntries(Object.keys(subjects).map((name) => [name, Infinity]));
  const count = Math.max(5, Math.round(400_000 / (body.length + 300)));
  for (let round = -WARM_UP; round < ROUNDS; round += 1) {
    for (const [name, run] of Object.entries(subjects)) {
      const start = process.hrtime.bigint();
      for (let index = 0; index < count; index += 1) run(headers, body);
      const time = Number(process.hrtime.bigint() - start) / 1000 / count;
      if (round >= 0) times[name] = Math.min(times[name], time);
    }
  }
  return times;
}

// Prints the times for a size. Returns how many times as fast as its peers this package is, at least.
function compare(size) {
  const { headers, body } = delivery(size);
  const forms = { text: body, Buffer: Buffer.from(body) };
  return Math.min(...Object.entries(forms).map(([kind, form]) => {
    const times = measure(headers, form);
    console.log(`${body.length} bytes, ${kind}`);
    for (const [name, time] of Object.entries(times)) {
      console.log(`  ${name.padEnd(34)} ${time.toFixed(2).padStart(9)} µs`);
    }
    const ratio = Math.min(
      times['standardwebhooks, JSON not parsed'] / times['this package'],
      times['standardwebhooks, JSON parsed'] / times['this package, JSON parsed'],
      times.svix / times['this package'],
    );
    console.log(`  ${ratio.toFixed(1)} times as fast as the fastest of the others, for the same work`);
    return ratio;
  }));
}

if (!check) {
  [300, 4096, 65536, 1 << 20].forEach(compare);
} else if (!Array.from({ length: ATTEMPTS }).some(() => compare(300) >= MIN_RATIO)) {
  console.error(`less than ${MIN_RATIO} times as fast in each of ${ATTEMPTS} attempts`);
  process.exitCode = 1;
}
