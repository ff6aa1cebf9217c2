//! What happens to the cluster as a whole, as long as the weather is bad.

use crate::cluster::Cluster;
use crate::plan::{LEASE_TERM, Upsets};
use crate::world::{Node, Way, World, pause};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an agent is down at most: longer than its leases last.
const DOWN_MS_MAX: u64 = 2 * LEASE_TERM.as_millis() as u64;
/// How long it stands still at most.
const STILL_MS_MAX: u64 = 3 * LEASE_TERM.as_millis() as u64;
/// How long something is out of reach at most.
const OUTAGE_MS_MAX: u64 = 2 * LEASE_TERM.as_millis() as u64;

#[derive(Clone, Copy)]
enum Upset {
    Kill,
    Pause,
    ShutDown,
    Outage,
    Cut,
}

/// Upsets until the weather is good; then there are no faults any more.
pub(crate) async fn happen(world: &Arc<World>, cluster: &Arc<Cluster>) {
    let end = Instant::now() + world.plan.bad_weather;
    let upsets = of(world.plan.upsets);
    loop {
        pause(world.up_to_ms(world.plan.upsets.every_ms) + Duration::from_millis(1)).await;
        if Instant::now() >= end {
            break;
        }
        if !upsets.is_empty() {
            happens(world, cluster, upsets[world.below(upsets.len() as u64) as usize]);
        }
    }
    world.calm_down();
    world.tell(format_args!("no more faults"));
}

fn of(upsets: Upsets) -> Vec<Upset> {
    let all = [
        (upsets.kills, Upset::Kill),
        (upsets.pauses, Upset::Pause),
        (upsets.shutdowns, Upset::ShutDown),
        (upsets.outages, Upset::Outage),
        (upsets.cuts, Upset::Cut),
    ];
    all.into_iter().filter_map(|(there, upset)| there.then_some(upset)).collect()
}

fn happens(world: &Arc<World>, cluster: &Arc<Cluster>, upset: Upset) {
    let number = world.below(world.plan.agents as u64) as usize;
    match upset {
        Upset::Kill => cluster.kill(number, world.up_to_ms(DOWN_MS_MAX)),
        Upset::Pause => cluster.stop(number, world.up_to_ms(STILL_MS_MAX)),
        Upset::ShutDown => cluster.shut_down(number, world.up_to_ms(DOWN_MS_MAX)),
        Upset::Outage => {
            let way = if world.below(2) == 0 { Way::Database } else { Way::Objects };
            interrupt(world, way, None);
        }
        Upset::Cut => {
            let producer = world.below(world.plan.producers as u64) as usize;
            interrupt(world, Way::Network, Some(Node::Producer(producer)));
        }
    }
}

fn interrupt(world: &World, way: Way, node: Option<Node>) {
    let time = world.up_to_ms(OUTAGE_MS_MAX);
    world.tell(format_args!("{way:?} is out of reach for {} ms", time.as_millis()));
    world.interrupt(way, node, time);
}
