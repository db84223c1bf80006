// Appends, histories and blobs on NATS, as docs/reference/protocol.md describes them.
import { createHash, randomBytes } from "node:crypto";
import { createInbox, headers, nanos } from "@nats-io/nats-core";

const MAX_INLINE = 256 * 1024;
const CHUNK = 128 * 1024;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const sha256 = (data) => createHash("sha256").update(data).digest("hex");
export const freshId = () => randomBytes(13).toString("hex");
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** The text of a body, or null where it is not UTF-8 (such an entry cannot be read). */
export function textOf(data) {
  try {
    return UTF8.decode(data);
  } catch {
    return null;
  }
}

/** A message's raw header block, one character a byte; a parsed one hides what makes it void. */
export function rawHeaders(message) {
  const { _rdata: whole, _msg: frame } = message;
  if (whole === undefined || frame === undefined) throw new Error("no access to the raw headers");
  const block = frame.hdr > 0 ? Buffer.from(whole.subarray(0, frame.hdr)).toString("latin1") : "";
  if (block === "" || block.endsWith("\r\n\r\n")) return block;
  // The server overwrites the last two bytes of a block that is cut off: nothing rests on them.
  return block.slice(-4, -2) === "\r\n" ? `${block.slice(0, -2)}\r\n` : "";
}

/** What a delivery's reply subject says; it has 9 tokens, or 12 with domain and account. */
export function delivered(message) {
  const part = message.reply.split(".");
  const at = part.length >= 11 ? 6 : 4;
  return {
    deliveries: Number(part[at]),
    sequence: Number(part[at + 1]),
    consumerSequence: Number(part[at + 2]),
    timeMs: Number(BigInt(part[at + 3]) / 1_000_000n),
    pending: Number(part[at + 4]),
  };
}

/** A delivered message as the stream keeps it. */
export function storedOf(message) {
  const { sequence, timeMs } = delivered(message);
  const { subject, data } = message;
  const headers = rawHeaders(message);
  return { sequence, timeMs, subject, headers, data: textOf(data), bytes: data };
}

async function api(nc, subject, body) {
  const answer = await nc.request(`$JS.API.${subject}`, JSON.stringify(body), { timeout: 5000 });
  const { error, ...found } = answer.json();
  if (error) throw Object.assign(new Error(error.description), { code: error.err_code });
  return found;
}

/** All messages under a filter, oldest first: a consumer confined to it delivers to our inbox. */
export async function readAll(nc, stream, filter) {
  const name = `read-${freshId()}`;
  const inbox = createInbox();
  const config = {
    name,
    filter_subject: filter,
    deliver_subject: inbox,
    deliver_policy: "all",
    ack_policy: "none",
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(10_000),
  };
  const subscription = nc.subscribe(inbox, { timeout: 10_000 });
  const created = await api(nc, `CONSUMER.CREATE.${stream}.${name}.${filter}`, {
    stream_name: stream,
    config,
  });
  const found = [];
  // What the consumer had delivered before it answered counts as well.
  let left = created.num_pending + (created.delivered?.consumer_seq ?? 0);
  if (left === 0) subscription.unsubscribe();
  for await (const message of subscription) {
    const { consumerSequence, pending } = delivered(message);
    if (consumerSequence !== found.length + 1) throw new Error("a gap: read again");
    found.push(storedOf(message));
    left = pending;
    if (left === 0) break;
  }
  nc.publish(`$JS.API.CONSUMER.DELETE.${stream}.${name}`);
  return found;
}

/** Append if `expect` is the last sequence of the scope; without an answer, send it again. */
export async function append(js, subject, body, { scope, expect }) {
  const data = JSON.stringify(body);
  for (;;) {
    try {
      const { seq } = await js.publish(subject, data, {
        timeout: 2000,
        expect: { lastSubjectSequence: expect, lastSubjectSequenceSubject: scope },
      });
      return { sequence: seq };
    } catch (error) {
      const code = error.apiError?.().err_code ?? error.code;
      if (code === 10071 || code === 10164) return { refused: true };
      if (code === 10077) throw new Error("SG1301: the ledger is full");
      await sleep(200);
    }
  }
}

const metaSubject = (digest) =>
  `$O.SG_BLOBS.M.${Buffer.from(digest).toString("base64url").padEnd(88, "=")}`;

/** The JSON text of an input or output: as it stands, or fetched as a blob and verified. */
export async function load(nc, inline, blob) {
  if (!blob) return JSON.stringify(inline);
  const { digest } = blob;
  const [described] = (await readAll(nc, "OBJ_SG_BLOBS", metaSubject(digest))).slice(-1);
  if (!described) throw new Error(`no blob ${digest}`);
  const { nuid } = JSON.parse(described.data);
  const chunks = await readAll(nc, "OBJ_SG_BLOBS", `$O.SG_BLOBS.C.${nuid}`);
  const data = Buffer.concat(chunks.map(({ bytes }) => bytes));
  if (sha256(data) !== digest) throw new Error(`SG1109: blob ${digest} has other content`);
  return UTF8.decode(data);
}

/** What stands in an entry for this JSON text: itself, or above the limit a reference to a blob. */
export async function store(js, text) {
  const data = Buffer.from(text);
  if (data.length <= MAX_INLINE) return { inline: JSON.parse(text), blob: undefined };
  const digest = sha256(data);
  const nuid = freshId();
  let chunks = 0;
  for (let at = 0; at < data.length; at += CHUNK, chunks += 1) {
    await js.publish(`$O.SG_BLOBS.C.${nuid}`, data.subarray(at, at + CHUNK));
  }
  const rollup = headers();
  rollup.set("Nats-Rollup", "sub");
  const described = {
    name: digest,
    bucket: "SG_BLOBS",
    nuid,
    size: data.length,
    chunks,
    digest: `SHA-256=${Buffer.from(digest, "hex").toString("base64url").padEnd(44, "=")}`,
    options: { max_chunk_size: CHUNK },
  };
  await js.publish(metaSubject(digest), JSON.stringify(described), { headers: rollup });
  return { inline: null, blob: { digest, size: data.length } };
}
