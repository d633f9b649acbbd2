-- The outbox, version 1. `pillarbox_` is the outbox's name; another name takes its place in every statement.
-- Changes of a schema are no transactions here: if this was cut short, it can be applied again.

-- Settings of the outbox, and the version of this schema.
CREATE TABLE IF NOT EXISTS pillarbox_setting (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row per message. Producers write the columns from `id` to `deliver_at`; all others are the outbox's own.
CREATE TABLE IF NOT EXISTS pillarbox_message (
    -- The order of enqueueing.
    seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    -- A UUID, 16 bytes.
    id BINARY(16) NOT NULL,
    topic VARCHAR(255) NOT NULL,
    ordering_key VARCHAR(512),
    -- A JSON object of strings.
    headers MEDIUMTEXT,
    payload LONGBLOB NOT NULL,
    content_type VARCHAR(255),
    -- Microseconds since 1970.
    created_at BIGINT NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))),
    deliver_at BIGINT,
    enqueued_at BIGINT NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))),
    -- 0 new, 1 new and due after a time of delivery or a redrive, 2 came back, 3 dead, 4 published, 5 dead and holds its
    -- key, 6 came back and is a suspect.
    state BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    strikes BIGINT NOT NULL DEFAULT 0,
    run_limit BIGINT,
    due_at BIGINT,
    ended_at BIGINT,
    reason TEXT,
    -- The lane in which a new message waits, 0 to 15.
    line BIGINT GENERATED ALWAYS AS (CASE WHEN state = 1 OR (state = 0 AND deliver_at IS NULL) THEN
        (CASE WHEN ordering_key IS NULL THEN CRC32(id) ELSE CRC32(ordering_key) END) % 16 END) STORED,
    -- The lane of a message that came back.
    back BIGINT GENERATED ALWAYS AS (CASE WHEN state IN (2, 6) THEN
        (CASE WHEN ordering_key IS NULL THEN CRC32(id) ELSE CRC32(ordering_key) END) % 16 END) STORED,
    -- The key that this message holds up.
    held_key VARCHAR(512) GENERATED ALWAYS AS (CASE WHEN state IN (2, 5, 6) THEN ordering_key END) STORED,
    scheduled_at BIGINT GENERATED ALWAYS AS (CASE WHEN state = 0 THEN deliver_at END) STORED,
    -- The id of what can be looked up by it.
    kept_id BINARY(16) GENERATED ALWAYS AS (CASE WHEN state >= 2 OR deliver_at IS NOT NULL THEN id END) STORED,
    KEY pillarbox_line (line, seq),
    KEY pillarbox_back (back, state, due_at, seq),
    KEY pillarbox_held (held_key, state, seq),
    KEY pillarbox_scheduled (scheduled_at, seq),
    KEY pillarbox_ended (ended_at, state, seq),
    KEY pillarbox_kept (kept_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- What relays hold: one row per lane, its lease, and the messages of its run.
CREATE TABLE IF NOT EXISTS pillarbox_lane (
    lane BIGINT NOT NULL PRIMARY KEY,
    fence BIGINT NOT NULL DEFAULT 0,
    -- Who holds it; null if nobody does.
    nonce BINARY(16),
    claimed_at BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT NOT NULL DEFAULT 0,
    not_before BIGINT NOT NULL DEFAULT 0,
    solo BIGINT NOT NULL DEFAULT 0,
    renewed BIGINT NOT NULL DEFAULT 0,
    run_length BIGINT NOT NULL DEFAULT 0,
    run MEDIUMBLOB,
    settled_fence BIGINT,
    settled_nonce BINARY(16)
) ENGINE = InnoDB;

INSERT IGNORE INTO pillarbox_lane (lane) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15);
INSERT IGNORE INTO pillarbox_setting (name, value) VALUES ('schema_version', '1');
