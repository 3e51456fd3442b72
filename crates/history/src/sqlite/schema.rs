//! The tables in SQLite, by version.

use rusqlite::{Connection, TransactionBehavior};

use super::failed;
use crate::store::{Migration, StoreError};

/// What makes version n of version n - 1 stands at place n - 1. Never changed once released: a further one is added.
const STEPS: [&str; 1] = ["
    CREATE TABLE records (
        id BLOB PRIMARY KEY,     -- UUIDv7: begins with the moment
        model TEXT NOT NULL,
        label TEXT NOT NULL,     -- the best one, empty when there is none
        bytes INTEGER NOT NULL,  -- what it counts against the limit
        body TEXT NOT NULL,      -- the record as JSON, without its correction
        correction TEXT          -- as JSON
    );
    CREATE INDEX records_by_model ON records (model, id);
    CREATE INDEX records_by_label ON records (label, id);
    CREATE INDEX records_by_model_and_label ON records (model, label, id);
    CREATE TABLE deleted (id BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX deleted_by_time ON deleted (at_ms);
    CREATE TABLE totals (records INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO totals VALUES (0, 0);
"];

const NEEDED: u32 = STEPS.len() as u32;

fn version(connection: &Connection) -> Result<u32, StoreError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)
}

/// Brings the tables to this program's version, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<Migration, StoreError> {
    if version(connection)? == NEEDED {
        return Ok(Migration { from: NEEDED, to: NEEDED });
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Asked again under the lock: another process may have been quicker.
    let from = version(&transaction)?;
    if from > NEEDED {
        return Err(newer(from));
    }
    for step in &STEPS[from as usize..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", NEEDED).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(Migration { from, to: NEEDED })
}

/// Whether the tables are those of an earlier program, or there are none yet.
pub(super) fn is_older(connection: &Connection) -> Result<bool, StoreError> {
    Ok(version(connection)? < NEEDED)
}

/// Whether the tables are those of this program.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        NEEDED => Ok(()),
        found if found > NEEDED => Err(newer(found)),
        found => Err(StoreError::Version { found, needed: NEEDED, advice: "run `outboard history migrate`" }),
    }
}

fn newer(found: u32) -> StoreError {
    StoreError::Version { found, needed: NEEDED, advice: "a newer program made them, use that one" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_newer_program_are_left_alone() {
        let mut connection = Connection::open_in_memory().expect("in memory");
        assert_eq!(migrate(&mut connection), Ok(Migration { from: 0, to: NEEDED }));
        assert_eq!(migrate(&mut connection), Ok(Migration { from: NEEDED, to: NEEDED }));
        connection.pragma_update(None, "user_version", NEEDED + 1).expect("a number");
        assert_eq!(migrate(&mut connection), Err(newer(NEEDED + 1)));
        assert_eq!(check(&connection), Err(newer(NEEDED + 1)));
    }
}
