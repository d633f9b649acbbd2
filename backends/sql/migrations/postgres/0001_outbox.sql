-- The outbox, version 1. `pillarbox_` is the outbox's name; another name takes its place in every statement.

-- Settings of the outbox, and the version of this schema.
CREATE TABLE pillarbox_setting (
    name text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- One row per message. Producers write the columns from `id` to `deliver_at`; all others are the outbox's own.
CREATE TABLE pillarbox_message (
    -- The order of enqueueing.
    seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    id uuid NOT NULL,
    topic text NOT NULL,
    ordering_key text COLLATE "C",
    -- A JSON object of strings.
    headers json,
    payload bytea NOT NULL,
    content_type text,
    -- Microseconds since 1970.
    created_at bigint NOT NULL DEFAULT ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    deliver_at bigint,
    enqueued_at bigint NOT NULL DEFAULT ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    -- 0 new, 1 new and due after a time of delivery or a redrive, 2 came back, 3 dead, 4 published, 5 dead and holds its
    -- key, 6 came back and is a suspect.
    state bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    strikes bigint NOT NULL DEFAULT 0,
    run_limit bigint,
    due_at bigint,
    ended_at bigint,
    reason text,
    -- The lane in which a new message waits, 0 to 15. The hash is the one of hash partitions, which is stable.
    line bigint GENERATED ALWAYS AS (CASE WHEN state = 1 OR (state = 0 AND deliver_at IS NULL) THEN
        (CASE WHEN ordering_key IS NULL THEN seq >> 6 ELSE hashtextextended(ordering_key, 0) END) & 15 END) STORED,
    -- The lane of a message that came back.
    back bigint GENERATED ALWAYS AS (CASE WHEN state IN (2, 6) THEN
        (CASE WHEN ordering_key IS NULL THEN seq >> 6 ELSE hashtextextended(ordering_key, 0) END) & 15 END) STORED,
    -- The key that this message holds up.
    held_key text COLLATE "C" GENERATED ALWAYS AS (CASE WHEN state IN (2, 5, 6) THEN ordering_key END) STORED,
    scheduled_at bigint GENERATED ALWAYS AS (CASE WHEN state = 0 THEN deliver_at END) STORED,
    -- The id of what can be looked up by it.
    kept_id uuid GENERATED ALWAYS AS (CASE WHEN state >= 2 OR deliver_at IS NOT NULL THEN id END) STORED
) WITH (
    -- Rows come and go: vacuum after some thousands of them, whatever the size of the table, and at full speed.
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 50000
);

CREATE INDEX pillarbox_line ON pillarbox_message (line, seq) WHERE line IS NOT NULL;
CREATE INDEX pillarbox_back ON pillarbox_message (back, state, due_at, seq) WHERE back IS NOT NULL;
CREATE INDEX pillarbox_held ON pillarbox_message (held_key, state, seq) WHERE held_key IS NOT NULL;
CREATE INDEX pillarbox_scheduled ON pillarbox_message (scheduled_at, seq) WHERE scheduled_at IS NOT NULL;
CREATE INDEX pillarbox_ended ON pillarbox_message (state, ended_at, seq) WHERE ended_at IS NOT NULL;
CREATE INDEX pillarbox_kept ON pillarbox_message (kept_id) WHERE kept_id IS NOT NULL;

-- What relays hold: one row per lane, its lease, and the messages of its run.
CREATE TABLE pillarbox_lane (
    lane bigint NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    -- Who holds it; null if nobody does.
    nonce bytea,
    claimed_at bigint NOT NULL DEFAULT 0,
    lease_until bigint NOT NULL DEFAULT 0,
    not_before bigint NOT NULL DEFAULT 0,
    solo bigint NOT NULL DEFAULT 0,
    renewed bigint NOT NULL DEFAULT 0,
    run_length bigint NOT NULL DEFAULT 0,
    run bytea,
    settled_fence bigint,
    settled_nonce bytea,
    -- There is one row of each lane. With the fence in it the index passes the earlier versions of a row, also while vacuum may not
    -- remove them.
    PRIMARY KEY (lane, fence)
) WITH (
    -- Sixteen rows, each updated twice per claim: room on their pages lets updates stay there, and vacuum comes often.
    fillfactor = 10, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

-- Published messages, where the outbox keeps them in partitions (`outbox.published_partitions`), which a purge drops as a whole. What is
-- published at a time for which there is no partition is in the rest.
CREATE TABLE pillarbox_published (
    seq bigint NOT NULL,
    id uuid NOT NULL,
    topic text NOT NULL,
    ordering_key text COLLATE "C",
    headers json,
    payload bytea NOT NULL,
    content_type text,
    created_at bigint NOT NULL,
    deliver_at bigint,
    enqueued_at bigint NOT NULL,
    attempts bigint NOT NULL,
    -- Microseconds since 1970.
    published_at bigint NOT NULL
) PARTITION BY RANGE (published_at);
CREATE TABLE pillarbox_published_rest PARTITION OF pillarbox_published DEFAULT;
CREATE INDEX pillarbox_published_rest_time ON pillarbox_published_rest (published_at);

INSERT INTO pillarbox_lane (lane) SELECT generate_series(0, 15);
INSERT INTO pillarbox_setting (name, value) VALUES ('schema_version', '1');
