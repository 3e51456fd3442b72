//! The tables in Cassandra, by version.

use super::{Cassandra, failed};
use crate::store::{Migration, StoreError};

/// What makes version n of version n - 1 stands at place n - 1. Each statement may be repeated: another process may do the same
/// at the same time, or this one may have been cut. Never changed once released: a further one is added.
const STEPS: [&[&str]; 1] = [&[
    // Rows leave by their TTL, and with them whole files: a window is a day.
    "CREATE TABLE IF NOT EXISTS KS.records (day int, shard tinyint, id uuid, body text, bytes bigint, correction text, \
     PRIMARY KEY ((day, shard), id)) WITH CLUSTERING ORDER BY (id DESC) AND compaction = \
     {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}",
    "CREATE TABLE IF NOT EXISTS KS.lists (kind text, value text, day int, shard tinyint, id uuid, \
     PRIMARY KEY ((kind, value, day, shard), id)) WITH CLUSTERING ORDER BY (id DESC) AND compaction = \
     {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}",
    "CREATE TABLE IF NOT EXISTS KS.days (kind text, value text, day int, PRIMARY KEY ((kind, value), day)) \
     WITH CLUSTERING ORDER BY (day DESC)",
    // 90 days: longer than a gateway stays away that has the record in its spool.
    "CREATE TABLE IF NOT EXISTS KS.deleted (id uuid PRIMARY KEY) WITH default_time_to_live = 7776000",
]];

const NEEDED: u32 = STEPS.len() as u32;

/// There are no tables.
pub(super) fn none() -> StoreError {
    StoreError::Version { found: 0, needed: NEEDED, advice: "run `outboard history migrate`" }
}

/// Of the tables that are there.
pub(super) async fn version(store: &Cassandra) -> Result<u32, StoreError> {
    let rows: Vec<(i32,)> = store.rows("SELECT version FROM KS.version WHERE one = 'history'", &()).await?;
    Ok(rows.first().map_or(0, |(version,)| (*version).max(0).unsigned_abs()))
}

pub(super) fn expect(found: u32) -> Result<(), StoreError> {
    match found {
        NEEDED => Ok(()),
        found if found > NEEDED => Err(newer(found)),
        found => Err(StoreError::Version { found, needed: NEEDED, advice: "run `outboard history migrate`" }),
    }
}

fn newer(found: u32) -> StoreError {
    StoreError::Version { found, needed: NEEDED, advice: "a newer program made them, use that one" }
}

/// Makes the keyspace where it is missing, and brings the tables to this program's version.
pub(super) async fn migrate(store: &Cassandra) -> Result<Migration, StoreError> {
    let settings = &store.0.settings;
    let from = match version(store).await {
        Ok(version) => version,
        Err(StoreError::Version { found, .. }) => found,
        Err(error) => return Err(error),
    };
    if from > NEEDED {
        return Err(newer(from));
    }
    if from < NEEDED {
        // By data centre, as the nodes say where they are: the one that counts copies in all would put them anywhere.
        define(
            store,
            format!(
                "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'NetworkTopologyStrategy', \
             'replication_factor': {}}}",
                settings.keyspace, settings.replication
            ),
        )
        .await?;
        let keyspace = format!("{}.", settings.keyspace);
        let table = "CREATE TABLE IF NOT EXISTS KS.version (one text PRIMARY KEY, version int)";
        define(store, table.replace("KS.", &keyspace)).await?;
        for step in &STEPS[from as usize..] {
            for statement in *step {
                define(store, statement.replace("KS.", &keyspace)).await?;
            }
        }
        // Last: whoever was cut before starts again.
        let text = format!("INSERT INTO KS.version (one, version) VALUES ('history', {NEEDED})");
        define(store, text.replace("KS.", &keyspace)).await?;
    }
    Ok(Migration { from, to: NEEDED })
}

/// Changes the tables; nothing of this can be prepared.
async fn define(store: &Cassandra, text: String) -> Result<(), StoreError> {
    let session = store.session().await?.get_session();
    session.query_unpaged(text, ()).await.map(drop).map_err(failed)
}
