// Submit a task and wait for its end:
// node submit.mjs URL OWNER CAPABILITY [TASK-ID] < input.json
// Prints one line of JSON: {task, state, output?, error?, voids}. Exits 0 if completed, else 1.
import { readFileSync } from "node:fs";
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { fold } from "./history.mjs";
import { append, freshId, load, readAll, sha256, sleep, store } from "./ledger.mjs";

const READ_AGAIN_MS = 5000; // live entries are stored nowhere: the ledger is the net below them

const [url, owner, capability, task = freshId()] = process.argv.slice(2);
const input = readFileSync(0, "utf8");
const scope = `sg.task.${capability}.${owner}.${task}.>`;
const nc = await connect({ servers: url, name: `node-client-${task}` });
const js = jetstream(nc);

const history = async () => fold(scope, await readAll(nc, "SG_LEDGER", scope));

/** Open the task. Raises where the id is taken by another submission. */
async function submit() {
  const { inline, blob } = await store(js, input);
  const now = new Date().toISOString();
  const body = {
    v: 1,
    id: freshId(),
    task,
    time: now,
    writer: `node-client-${task}`,
    status: { state: "queued", submitted_at: now },
    input: inline,
    ...(blob && { input_blob: blob }),
    digest: sha256(JSON.stringify([capability, blob?.digest ?? inline, {}])),
  };
  for (let expect = 0; ; ) {
    const answer = await append(js, `sg.task.${capability}.${owner}.${task}.submitted`, body, {
      scope,
      expect,
    });
    if (!answer.refused) return;
    const stands = await history();
    if (stands.landed(body.id) || stands.submitted?.digest === body.digest) return;
    if (stands.position !== "none" || stands.remnant) throw new Error("SG1402: the id is taken");
    expect = stands.last; // only void entries stand there
  }
}

/** The history at the end: live entries say when to look, the ledger says what is true. */
async function ended(live) {
  for (;;) {
    const stands = await history();
    if (stands.ended) return stands;
    await Promise.race([live.next(), sleep(READ_AGAIN_MS)]);
  }
}

const live = nc.subscribe(`sg.live.${capability}.${owner}.${task}.>`)[Symbol.asyncIterator]();
await submit();
const { ended: state, end, voids } = await ended(live);
const said = { task, state, voids };
if (state === "completed") said.output = JSON.parse(await load(nc, end.output, end.output_blob));
else said.error = end.error ?? { code: end.code, message: end.reason };
await nc.close();
const code = state === "completed" ? 0 : 1;
process.stdout.write(`${JSON.stringify(said)}\n`, () => process.exit(code));
