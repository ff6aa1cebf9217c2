//! Connecting: many at once, and databases that cannot be used: each is refused with a sentence that says what to do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::Ipv4Addr;
use streamhouse_core::{ErrorKind, TopicName};
use streamhouse_metadata::*;
use streamhouse_tests::postgres::{query, test_database};
use tokio::net::TcpSocket;

fn orders() -> TopicName {
    "orders".parse().unwrap()
}

/// The error of connecting, as one sentence.
async fn refused(url: &str) -> String {
    let error = PostgresMetadataStore::connect(url).await.expect_err("this database cannot be used");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let message = error.to_string();
    assert!(!message.contains("secret") && !format!("{error:?}").contains("secret"), "{message}");
    message
}

/// The same database as another user.
fn with_user(url: &str, user: &str) -> String {
    let (_, server) = url.split_once('@').unwrap();
    format!("postgres://{user}:secret@{server}")
}

#[tokio::test]
async fn an_empty_database_can_be_opened_by_many_at_once() {
    let url = test_database("open").unwrap();
    let open = (0..6).map(|number| {
        let url = url.clone();
        tokio::spawn(async move {
            let store = PostgresMetadataStore::connect(&url).await?;
            store.create_topic(&format!("topic-{number}").parse().unwrap(), 1, Retention::default()).await?;
            Result::<_>::Ok(store)
        })
    });
    let mut stores = Vec::new();
    for handle in open.collect::<Vec<_>>() {
        stores.push(handle.await.unwrap().unwrap());
    }
    for store in &stores {
        assert_eq!(store.topics().await.unwrap().len(), 6, "every handle sees what every other wrote");
    }
    stores[0].close().await;
    assert!(stores[0].topics().await.is_err(), "a closed store answers nothing");
}

#[tokio::test]
async fn it_says_whom_it_cannot_reach() {
    // Bound and not listened on: nobody else gets it.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = silent.local_addr().unwrap().port();
    let message = refused(&format!("postgres://user:secret@127.0.0.1:{port}/log")).await;
    let host = format!("postgres://user@127.0.0.1:{port}/log cannot be reached; check that PostgreSQL runs");
    assert!(message.contains(&host), "{message}");

    let url = test_database("open").unwrap();
    let message = refused(&format!("{url}_not_there")).await;
    assert!(message.contains("has no such database; create it with `createdb`"), "{message}");
    let message = refused(&with_user(&url, "nobody_knows")).await;
    assert!(message.contains("refuses this user; check user name and password"), "{message}");
}

#[tokio::test]
async fn it_says_what_it_may_not() {
    let url = test_database("open").unwrap();
    let user = format!("visitor_{}", url.rsplit('_').next().unwrap());
    query(&url, &format!("DROP ROLE IF EXISTS {user}; CREATE ROLE {user} LOGIN")).unwrap();
    let message = refused(&with_user(&url, &user)).await;
    assert!(message.contains("does not let this user do that; make the user the owner"), "{message}");
    query(&url, &format!("DROP ROLE {user}")).unwrap();
}

#[tokio::test]
async fn databases_of_others_and_of_other_versions_are_left_alone() {
    let url = test_database("open").unwrap();
    query(&url, "CREATE TABLE topics (anything text)").unwrap();
    let message = refused(&url).await;
    assert!(message.contains("holds another program's tables; give StreamHouse a database"), "{message}");

    let url = test_database("open").unwrap();
    PostgresMetadataStore::connect(&url).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', true, ''::bytea, 0)";
    query(&url, later).unwrap();
    for message in
        [refused(&url).await, PostgresMetadataStore::connect_read_only(&url).await.unwrap_err().to_string()]
    {
        assert!(message.contains("was written by another version of StreamHouse"), "{message}");
    }
}

#[tokio::test]
async fn a_reader_sees_what_others_write_and_writes_nothing_itself() {
    let url = test_database("open").unwrap();
    let error = PostgresMetadataStore::connect_read_only(&url).await.unwrap_err();
    assert!(error.to_string().contains("is empty or was written by an earlier version"), "{error}");
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    let reader: MetadataUrl = url.parse().unwrap();
    let reader = reader.open_read_only().await.unwrap();
    let created = store.create_topic(&orders(), 1, Retention::default()).await.unwrap();
    assert_eq!(reader.topics().await.unwrap(), [created]);
    let group = "g".parse().unwrap();
    store
        .join_group(&group, &"m".parse().unwrap(), &[orders()], std::time::Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(reader.group_view(&group).await.unwrap().members.len(), 1);
    for write in [
        reader.create_topic(&"more".parse().unwrap(), 1, Retention::default()).await.map(drop),
        reader.new_producer_id().await.map(drop),
    ] {
        let error = write.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("was opened for reading only"), "{error}");
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_on_disk_whatever_the_servers_default() {
    let url = test_database("open").unwrap();
    let (_, name) = url.rsplit_once('/').unwrap();
    query(&url, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).unwrap();
    let store = PostgresMetadataStore::connect(&url).await.unwrap();
    // A trigger notes the setting of the session that commits.
    let note = "CREATE TABLE noted (setting text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
        CREATE TRIGGER note AFTER INSERT ON topics FOR EACH ROW EXECUTE FUNCTION note()";
    query(&url, note).unwrap();
    store.create_topic(&orders(), 1, Retention::default()).await.unwrap();
    assert_eq!(query(&url, "SELECT setting FROM noted").unwrap(), "on");
}

#[tokio::test]
async fn urls_name_stores_and_keep_their_password() {
    let url: MetadataUrl = "postgresql://user:secret@db.example/log?sslmode=require".parse().unwrap();
    assert!(matches!(&url, MetadataUrl::Postgres(_)));
    assert_eq!(url.to_string(), "postgres://user@db.example:5432/log");
    assert!(!format!("{url:?}").contains("secret"), "{url:?}");
    let error = "postgres://user:secret@host:notaport/log".parse::<MetadataUrl>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("postgres://USER:PASSWORD@HOST:PORT/DATABASE") && !shown.contains("secret"),
        "{shown}"
    );
    for path in ["sqlite:a/b.db", "a/b.db", "sqlite://a/b.db"] {
        assert_eq!(path.parse::<MetadataUrl>().unwrap().to_string(), "sqlite:a/b.db");
    }
    assert!("sqlite:".parse::<MetadataUrl>().is_err());

    let directory = tempfile::TempDir::new().unwrap();
    let file: MetadataUrl = directory.path().join("metadata.db").to_str().unwrap().parse().unwrap();
    let first = file.open_for_agent().await.unwrap();
    let error = file.open_for_agent().await.unwrap_err();
    assert!(matches!(error, MetadataError::AgentRuns { .. }), "{error}");
    drop(first);
    let shared: MetadataUrl = test_database("open").unwrap().parse().unwrap();
    let agents = (shared.open_for_agent().await.unwrap(), shared.open_for_agent().await.unwrap());
    assert!(agents.0.lock.is_none() && agents.1.lock.is_none(), "agents share a server");
}
