// Serve the capability `node-upper` (a text, in upper case): node serve.mjs URL
// Prints "ready" once its lanes exist, and "begun TASK" for each execution. SIGTERM, or a drain command, lets it finish and leave.
import { jetstream } from "@nats-io/jetstream";
import { createInbox } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { fits } from "./history.mjs";
import { freshId, sha256, sleep } from "./ledger.mjs";
import { Attempt, Lost } from "./attempt.mjs";

const AGENT = "node-agent";
const CAPABILITY = "node-upper";
const SLOTS = 4;
const ANNOUNCE_MS = 10_000;
const LEASE_MS = 10_000; // a third of the lanes' ack_wait
const REMEMBER_CANCEL_MS = 2000;

const TEXT = { $schema: "https://json-schema.org/draft/2020-12/schema", type: "string" };
const digest = sha256(JSON.stringify(TEXT));
const pool = `${AGENT}-${sha256(`${CAPABILITY} 1.0.0 ${digest}`).slice(0, 10)}`;
const instance = `${AGENT}-${freshId().slice(0, 12)}`;
const started = new Date().toISOString();
const lanes = ["high", "normal", "low"].map((one) => `lane=${CAPABILITY}=${pool}=${one}`);
const running = new Map();
const cancels = new Map();
let draining = false;

const nc = await connect({ servers: process.argv[2], name: instance, maxReconnectAttempts: -1 });
const js = jetstream(nc);
const announceSubject = `sg.announce.${AGENT}.${instance}`;

/** Say what is offered and what runs; gone by itself 30 s later. */
async function announce() {
  const body = {
    v: 1,
    agent: AGENT,
    instance,
    version: "1.0.0",
    started,
    time: new Date().toISOString(),
    offers: [
      {
        name: CAPABILITY,
        version: "1.0.0",
        pool,
        input_digest: digest,
        output_digest: digest,
        input_schema: TEXT,
        output_schema: TEXT,
        description: "A text in upper case.",
        concurrency: SLOTS,
      },
    ],
    running: [...running.values()].map((one) => one.shown()),
    busy: { [CAPABILITY]: running.size },
    draining,
    sdk: "node-test 1",
  };
  if (!fits("announcement", body)) throw new Error("the announcement breaks its schema");
  await js.publish(announceSubject, JSON.stringify(body), { ttl: "30s" });
}

/** Ask a coordinator for the lanes until one answers. */
async function ensureLanes(missing) {
  const query = { agent: AGENT, instance, lanes: [[CAPABILITY, pool]], missing };
  for (;;) {
    try {
      const answer = await nc.request(`sg.api.lanes.${AGENT}`, JSON.stringify(query), {
        timeout: 5000,
      });
      if (fits("lanes", answer.json())) return;
    } catch {
      // no coordinator answers yet
    }
    await sleep(200);
  }
}

/** At most one delivery; `expires` in ms, 0: what is there now. Throws: nobody serves the lane. */
function pull(lane, expires) {
  // A delivery carries the entry's own subject, so a request's shared inbox would not know it.
  const wanted = expires ? { batch: 1, expires: expires * 1e6 } : { batch: 1, no_wait: true };
  const inbox = createInbox();
  return new Promise((done, failed) => {
    nc.subscribe(inbox, {
      max: 1,
      timeout: expires + 2000,
      callback: (error, message) => {
        if (error || message.headers?.code === 503) failed(error ?? new Error("no such lane"));
        else done(message.headers?.code ? null : message);
      },
    });
    const subject = `$JS.API.CONSUMER.MSG.NEXT.SG_LEDGER.${lane}`;
    nc.publish(subject, JSON.stringify(wanted), { reply: inbox });
  });
}

/** Begin a delivery in a slot of its own. */
function begin(message) {
  const attempt = new Attempt(nc, js, message, instance, AGENT);
  const known = running.get(attempt.task);
  if (known) return void known.again(attempt); // this instance still runs it
  running.set(attempt.task, attempt);
  serve(attempt)
    .catch((error) => {
      if (!(error instanceof Lost)) console.error(error);
    })
    .finally(() => running.delete(attempt.task));
}

async function serve(attempt) {
  const dispatched = await attempt.receive(cancels.has(attempt.task));
  if (dispatched === null) return;
  console.log(`begun ${attempt.task}`);
  const text = await attempt.input();
  if (typeof text !== "string") {
    const message = "not a text";
    await attempt.failed({ error_class: "invalid", code: "SG1507", message, path: "$" });
  } else if (text.startsWith("sleep ")) {
    await attempt.sleep(Number(text.slice(6)));
    await attempt.completed(text.toUpperCase());
  } else {
    await attempt.completed(text.toUpperCase());
  }
}

/** Freed slots look from the highest lane down; with nothing there, one pull waits on each lane. */
async function feed() {
  while (!draining) {
    try {
      if (running.size >= SLOTS) {
        await sleep(5);
        continue;
      }
      let came = false;
      for (const lane of lanes) {
        while (running.size < SLOTS) {
          const message = await pull(lane, 0);
          if (message === null) break;
          came = true;
          begin(message);
        }
      }
      if (came) continue;
      const waits = lanes.slice(0, SLOTS - running.size).map((lane) => pull(lane, 500));
      for (const message of await Promise.all(waits)) if (message) begin(message);
    } catch {
      await ensureLanes(true);
    }
  }
}

async function drain() {
  if (draining) return;
  draining = true;
  await announce();
  await feeding;
  while (running.size > 0) await sleep(10);
  clearInterval(announcing);
  await js.publish(announceSubject, "", { ttl: "60s" });
  await nc.drain();
  process.exit(0);
}

nc.subscribe(`sg.cancel.${CAPABILITY}`, {
  callback: (_, message) => {
    const { task } = message.json();
    if (running.has(task)) running.get(task).cancelled();
    else cancels.set(task, setTimeout(() => cancels.delete(task), REMEMBER_CANCEL_MS));
  },
});
nc.subscribe(`sg.control.${AGENT}.${instance}`, {
  callback: (_, message) => {
    if (fits("command", message.json())) drain();
  },
});
process.on("SIGTERM", drain);

await announce();
const announcing = setInterval(() => announce().catch(console.error), ANNOUNCE_MS);
setInterval(() => running.forEach((one) => one.inProgress()), LEASE_MS).unref();
await ensureLanes(false);
const feeding = feed();
console.log("ready");
