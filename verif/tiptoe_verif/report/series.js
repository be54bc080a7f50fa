// A run's rows as series over time: what a connection's segments did, and what the record says of connections and engine.

// Places in a row of a frame, as reader.py writes it.
const F = { number: 0, time: 1, first: 2, last: 3, toEngine: 4, connection: 5, forward: 6, flags: 7, start: 8, end: 9, again: 10,
            ack: 11, edge: 12, note: 13, length: 14, bytes: 15 };

function lines() { return { x: [], y: [], customdata: [] }; }

function addBar(into, time, low, high, number) {
  into.x.push(time, time, null);
  into.y.push(low, high, null);
  into.customdata.push(number, number, null);
}

function addPoint(into, time, value, number) {
  into.x.push(time);
  into.y.push(value);
  into.customdata.push(number);
}

// One direction of one connection as tcptrace draws it. seconds: a frame's or row's time in the graphs' unit.
function sequenceSeries(frames, connection, forward, seconds) {
  const found = { data: lines(), again: lines(), marks: lines(), acks: lines(), edges: lines(), flags: { ...lines(), text: [] } };
  for (const frame of frames) {
    if (frame[F.connection] !== connection) continue;
    const time = seconds(frame[F.time]), number = frame[F.number];
    if (frame[F.forward] === forward) {
      const start = Math.max(frame[F.start], 0);
      if (frame[F.end] > start) addBar(frame[F.again] ? found.again : found.data, time, start, frame[F.end], number);
      if (frame[F.again]) addPoint(found.marks, time, frame[F.start], number);
      const names = [["S", "SYN"], ["F", "FIN"], ["R", "RST"]].filter(([letter]) => frame[F.flags].includes(letter));
      if (names.length) {
        addPoint(found.flags, time, Math.max(frame[F.end], 0), number);
        found.flags.text.push(names.map(([, name]) => name).join(" "));
      }
    } else if (frame[F.ack] !== null && !frame[F.flags].includes("S")) {
      addPoint(found.acks, time, frame[F.ack], number);
      addPoint(found.edges, time, frame[F.edge], number);
    }
  }
  return found;
}

// Names of a connection in the record: the engine's end first, which in the capture may be either.
const namesOf = (ends) => [`${ends[0]} ${ends[1]}`, `${ends[1]} ${ends[0]}`];

const PHASES = { SYN_SENT: "opening", SYN_RECEIVED: "opening", ESTABLISHED: "established", TIME_WAIT: "TIME_WAIT" };

// Spans of states: {conn, state, phase, from, to}. A name may come with a later event of the same life of an id, which ends with
// CLOSED: the id is another connection's then.
function stateSpans(rows, end) {
  const lives = new Map(), spans = [];
  for (const row of rows) {
    if (row.k !== "state") continue;
    const life = lives.get(row.id) || [], last = life[life.length - 1];
    if (last) last.to = row.t;
    if (row.conn) for (const span of life) span.conn ||= row.conn;
    if (row.state === "CLOSED") lives.delete(row.id);
    else {
      const span = { conn: row.conn || (last ? last.conn : ""), state: row.state, phase: PHASES[row.state] || "closing", from: row.t, to: end };
      lives.set(row.id, [...life, span]);
      spans.push(span);
    }
  }
  return spans;
}

// What the samples say of one connection within its time.
function connectionSamples(rows, ends, from, to) {
  const found = [], names = namesOf(ends);
  for (const row of rows) {
    if (row.k !== "sample" || row.t < from || row.t > to) continue;
    const entry = row.conns.find((each) => names.includes(each.conn));
    if (entry && entry.cwnd !== undefined) found.push({ t: row.t, ...entry });
  }
  return found;
}

// Shares of the engine between samples, in percent; no value where its clock stood still.
function engineSeries(rows, header) {
  const found = [];
  let before = null;
  for (const row of rows) {
    if (row.k !== "sample") continue;
    const now = row.engine;
    if (before) {
      const delta = (name) => now[name] - before.engine[name];
      const cycles = delta("cycles") - delta("skipped");
      const share = (value, of) => (cycles > 0 ? (100 * value) / (cycles * of) : null);
      found.push({
        t: row.t, pipeline: header.waveform ? null : share(delta("flow_busy"), 1), reads: share(delta("read_beats"), 1),
        writes: share(delta("write_beats"), 1), rx: share(delta("rx_beats"), 1), tx: share(delta("tx_beats"), 1),
        buffer: share(delta("rx_level"), header.rx_words), reads_open: share(delta("reads_open"), 100),
        writes_open: share(delta("writes_open"), 100), ids: row.ids, half_open: row.half_open,
        commands: row.commands[0] - row.commands[1] + row.commands[2],
      });
    }
    before = row;
  }
  return found;
}

const DROPS = ["RX_BAD_FRAME", "RX_BAD_IP", "RX_BAD_TCP", "RX_HOST_DROPPED", "SYN_DROPPED_FULL", "SYN_QUEUE_FULL", "RX_OUT_OF_WINDOW",
  "RX_OOO_DISCARDED", "TX_DROPPED", "EVENT_RING_FULL", "OLD_TIMESTAMPS", "DMA_READ_ERROR", "DMA_WRITE_ERROR", "BAD_COMMAND",
  "BAD_DOORBELL", "WATCHDOG"];

// Marks on the common time axis: {t, row, text}.
function marks(frames, rows) {
  const found = [], before = {};
  let lost = 0;
  for (const frame of frames) {
    if (frame[F.again]) found.push({ t: frame[F.time], row: "sent again", text: `frame ${frame[F.number]}`, number: frame[F.number] });
    if (frame[F.flags].includes("R")) found.push({ t: frame[F.time], row: "RST", text: `frame ${frame[F.number]}`, number: frame[F.number] });
    if (frame[F.note] && frame[F.connection] === null)
      found.push({ t: frame[F.time], row: "drops", text: frame[F.note], number: frame[F.number] });
  }
  for (const row of rows) {
    if (row.k === "state") found.push({ t: row.t, row: "events", text: `${row.state}${row.reason ? ` (${row.reason})` : ""} ${row.conn}` });
    if (row.k === "event") found.push({ t: row.t, row: "events", text: row.name });
    const fell = [];
    for (const name of DROPS) {
      const count = (row.counters || {})[name];
      if (count === undefined) continue;
      const last = before[name] || 0;  // a reset of the engine begins at 0 anew
      fell.push(`${name} ${count < last ? count : count - last}`);
      before[name] = count;
    }
    if (fell.length) found.push({ t: row.t, row: "drops", text: `since the counters before: ${fell.join(", ")}` });
    if (row.lost > lost) found.push({ t: row.t, row: "drops", text: `${row.lost - lost} lost or damaged by the line` });
    lost = row.lost || lost;
  }
  return found;
}
