-- Times are Unix times in nanoseconds; 0 is never. options is a JSON array, sealed with the key that key_id names if it names one; NULL
-- is no form. The primary key serves every query: an account's rows lie next to each other, and the table is its own index.
CREATE TABLE {prefix}registrations (
	account   TEXT    NOT NULL,
	service   TEXT    NOT NULL,
	node      TEXT    NOT NULL,
	options   BLOB,
	key_id    TEXT    NOT NULL,
	client    TEXT    NOT NULL,
	enabled   INTEGER NOT NULL,
	errors    INTEGER NOT NULL,
	refusals  INTEGER NOT NULL,
	succeeded INTEGER NOT NULL,
	disabled  INTEGER NOT NULL,
	cause     TEXT    NOT NULL,
	PRIMARY KEY (account, service, node)
) STRICT, WITHOUT ROWID;
