//! The agent's `/metrics`, `/health` and `/ready`.

use std::time::Duration;
use streamhouse_planes::{World, ask};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_lives_as_long_as_its_agent() {
    let world = World::start().await;
    let address = world.agent.http_address();
    world.until("a lease", |page| page.sum("streamhouse_agent_ready", &[]) == 1.0).await;
    let page = ask(address, "/metrics").await.unwrap();
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("# TYPE streamhouse_agent_lease_renewals_total counter\n"),
        "text, as asked for"
    );
    assert_eq!(ask(address, "/health").await.unwrap().body, "ok\n");
    assert!(ask(address, "/ready").await.unwrap().body.starts_with("ready: 2 partitions leased"));
    assert_eq!(ask(address, "/nothing").await.unwrap().status, 404);
    world.agent.shutdown().await;
    assert!(ask(address, "/health").await.is_err(), "nobody listens any more");
    let again = streamhouse_planes::agent(&world.dir, "agent-1").await;
    assert_eq!(ask(again.http_address(), "/health").await.unwrap().status, 200);
    tokio::time::timeout(Duration::from_secs(30), again.shutdown()).await.unwrap();
}
