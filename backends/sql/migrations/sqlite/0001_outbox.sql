-- The outbox, version 1. `pillarbox_` is the outbox's name; another name takes its place in every statement.

-- Settings of the outbox, and the version of this schema.
CREATE TABLE pillarbox_setting (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per message. Producers write the columns from `id` to `deliver_at`; all others are the outbox's own.
CREATE TABLE pillarbox_message (
    -- The order of enqueueing.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    -- A UUID, 16 bytes.
    id BLOB NOT NULL,
    topic TEXT NOT NULL,
    ordering_key TEXT,
    -- A JSON object of strings.
    headers TEXT,
    payload BLOB NOT NULL,
    content_type TEXT,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)),
    deliver_at INTEGER,
    enqueued_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)),
    -- 0 new, 1 new and due after a time of delivery or a redrive, 2 came back, 3 dead, 4 published, 5 dead and holds its
    -- key, 6 came back and is a suspect.
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    run_limit INTEGER,
    due_at INTEGER,
    ended_at INTEGER,
    reason TEXT,
    -- The lane in which a new message waits, 0 to 15.
    line INTEGER GENERATED ALWAYS AS (CASE WHEN state = 1 OR (state = 0 AND deliver_at IS NULL) THEN
        (CASE WHEN ordering_key IS NULL THEN seq / 64 ELSE
            coalesce(unicode(substr(ordering_key, -1)), 0) + 3 * coalesce(unicode(substr(ordering_key, -2, 1)), 0)
            + 7 * coalesce(unicode(substr(ordering_key, -3, 1)), 0) + 5 * length(ordering_key)
        END) % 16 END) STORED,
    -- The lane of a message that came back.
    back INTEGER GENERATED ALWAYS AS (CASE WHEN state IN (2, 6) THEN
        (CASE WHEN ordering_key IS NULL THEN seq / 64 ELSE
            coalesce(unicode(substr(ordering_key, -1)), 0) + 3 * coalesce(unicode(substr(ordering_key, -2, 1)), 0)
            + 7 * coalesce(unicode(substr(ordering_key, -3, 1)), 0) + 5 * length(ordering_key)
        END) % 16 END) STORED,
    -- The key that this message holds up.
    held_key TEXT GENERATED ALWAYS AS (CASE WHEN state IN (2, 5, 6) THEN ordering_key END) STORED,
    scheduled_at INTEGER GENERATED ALWAYS AS (CASE WHEN state = 0 THEN deliver_at END) STORED,
    -- The id of what can be looked up by it.
    kept_id BLOB GENERATED ALWAYS AS (CASE WHEN state >= 2 OR deliver_at IS NOT NULL THEN id END) STORED
) STRICT;

CREATE INDEX pillarbox_line ON pillarbox_message (line) WHERE line IS NOT NULL;
CREATE INDEX pillarbox_back ON pillarbox_message (back, state, due_at) WHERE back IS NOT NULL;
CREATE INDEX pillarbox_held ON pillarbox_message (held_key, state) WHERE held_key IS NOT NULL;
CREATE INDEX pillarbox_scheduled ON pillarbox_message (scheduled_at) WHERE scheduled_at IS NOT NULL;
CREATE INDEX pillarbox_ended ON pillarbox_message (state, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX pillarbox_kept ON pillarbox_message (kept_id) WHERE kept_id IS NOT NULL;

-- What relays hold: one row per lane, its lease, and the messages of its run.
CREATE TABLE pillarbox_lane (
    lane INTEGER NOT NULL PRIMARY KEY,
    fence INTEGER NOT NULL DEFAULT 0,
    -- Who holds it; null if nobody does.
    nonce BLOB,
    claimed_at INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    solo INTEGER NOT NULL DEFAULT 0,
    renewed INTEGER NOT NULL DEFAULT 0,
    run_length INTEGER NOT NULL DEFAULT 0,
    run BLOB,
    settled_fence INTEGER,
    settled_nonce BLOB
) STRICT;

INSERT INTO pillarbox_lane (lane) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15);
INSERT INTO pillarbox_setting (name, value) VALUES ('schema_version', '1');
