-- Times are Unix times in nanoseconds; 0 is never. options is a JSON array, sealed with the key that key_id names if it names one; NULL
-- is no form. The primary key serves every query. Names compare as bytes, whatever the database's locale; counters are in no index, and
-- pages keep some room, so that a change of them touches one page.
CREATE TABLE {prefix}registrations (
	account   TEXT COLLATE "C" NOT NULL,
	service   TEXT COLLATE "C" NOT NULL,
	node      TEXT COLLATE "C" NOT NULL,
	options   BYTEA,
	key_id    TEXT   NOT NULL,
	client    TEXT   NOT NULL,
	enabled   BIGINT NOT NULL,
	errors    BIGINT NOT NULL,
	refusals  BIGINT NOT NULL,
	succeeded BIGINT NOT NULL,
	disabled  BIGINT NOT NULL,
	cause     TEXT   NOT NULL,
	PRIMARY KEY (account, service, node)
) WITH (fillfactor = 90);
