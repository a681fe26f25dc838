-- Times are milliseconds since 1970 in UTC; documents are JSON of crate bulkhead-api.

CREATE TABLE sites (
    name         TEXT PRIMARY KEY,
    spec         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    -- SHA-256 of the public key that is in use: a certificate of another key is void.
    enrolled_key BLOB,
    -- SHA-256 of a public key that was certified since; takes over when the site first shows it.
    next_key     BLOB,
    last_seen    INTEGER
) STRICT, WITHOUT ROWID;

-- Tickets with which a site joins. One key uses one ticket; the same key may ask again.
CREATE TABLE tickets (
    hash       BLOB PRIMARY KEY,
    site       TEXT NOT NULL REFERENCES sites (name) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    used_by    BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    name       TEXT PRIMARY KEY,
    spec       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Enrolled machines.
CREATE TABLE hosts (
    id          TEXT PRIMARY KEY,
    site        TEXT NOT NULL REFERENCES sites (name),
    mac         TEXT NOT NULL UNIQUE,
    uuid        TEXT UNIQUE,
    enrolled_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Machines whose enrolment was refused.
CREATE TABLE refusals (
    id       TEXT PRIMARY KEY,
    site     TEXT NOT NULL REFERENCES sites (name) ON DELETE CASCADE,
    mac      TEXT NOT NULL,
    uuid     TEXT,
    reason   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a site's boot services have seen.
CREATE TABLE machines (
    site    TEXT NOT NULL REFERENCES sites (name) ON DELETE CASCADE,
    mac     TEXT NOT NULL,
    machine TEXT NOT NULL,
    PRIMARY KEY (site, mac)
) STRICT, WITHOUT ROWID;

-- `number` is the order of creation, in which placement counts leases not yet reported.
CREATE TABLE leases (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant          TEXT NOT NULL REFERENCES tenants (name),
    name            TEXT NOT NULL,
    host            TEXT NOT NULL REFERENCES hosts (id),
    spec            TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    deleting_at     INTEGER,
    -- The first generation of the host's spec without this lease.
    gone_generation INTEGER,
    UNIQUE (tenant, name)
) STRICT;
CREATE INDEX leases_by_host ON leases (host);

-- The last signed spec of each host. Outlives the host, so that generations never go back.
CREATE TABLE specs (
    host       TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    leases     TEXT NOT NULL,
    signed     TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    expiry     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last report of each host: greatest (boot, seq).
CREATE TABLE reports (
    host        TEXT PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    boot        INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    status      TEXT NOT NULL,
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who changed what. Only grows.
CREATE TABLE audit (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    status  INTEGER NOT NULL,
    reason  TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
