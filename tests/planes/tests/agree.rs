//! One workload, seen from inside and by the probe: every count, sum and bucket is the same.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use streamhouse_planes::World;
use streamhouse_tests::{Binaries, Cluster, Exposition, Probe};

type Series = BTreeMap<(String, Vec<(String, String)>), u64>;

/// What both planes serve, by name and labels: without labels that are empty, and bounds by their value.
fn series(page: &Exposition) -> Series {
    let own = ["streamhouse_probe_", "streamhouse_host_", "streamhouse_process_"];
    let shared = page.samples.iter().filter(|sample| !own.iter().any(|own| sample.name.starts_with(own)));
    shared
        .map(|sample| {
            let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
                let bound = |value: &String| value.parse().unwrap_or(f64::INFINITY).to_bits().to_string();
                (name.clone(), if name == "le" { bound(value) } else { value.clone() })
            });
            ((sample.name.clone(), labels.collect()), sample.value.to_bits())
        })
        .collect()
}

/// In this process the probe's tests would not be allowed to attach where there is no eBPF.
fn bpf_is_required() -> bool {
    std::env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some()
}

fn attach(dir: &std::path::Path) -> Result<Probe> {
    let cluster = Cluster::new(Binaries::from_env()?, dir)?;
    let probe = cluster.start_probe(&["--even-self-serving"])?;
    probe.await_attached(&[std::process::id()])?;
    Ok(probe)
}

/// Runs until both say the same, and gives how many series that were.
async fn agreement(world: &World, probe: &Probe) -> Result<usize> {
    let start = Instant::now();
    loop {
        let before = series(&world.page().await?);
        let outside = series(&tokio::task::block_in_place(|| probe.scrape())?);
        let after = series(&world.page().await?);
        if before == outside || outside == after {
            return Ok(after.len());
        }
        if start.elapsed() > Duration::from_secs(30) {
            let differs: Vec<_> = after
                .iter()
                .filter(|(key, value)| outside.get(*key) != Some(*value))
                .map(|(key, value)| {
                    (key, f64::from_bits(*value), outside.get(key).map(|bits| f64::from_bits(*bits)))
                })
                .collect();
            let only_outside: Vec<_> = outside.keys().filter(|key| !after.contains_key(*key)).collect();
            bail!(
                "the planes differ (series, inside, outside): {differs:#?}\nonly outside: {only_outside:#?}"
            );
        }
        // Heartbeats and renewals go on: a moment without one is needed.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_planes_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = match attach(dir.path()) {
        Ok(probe) => probe,
        Err(error) if bpf_is_required() => panic!("{error:#}"),
        Err(error) => {
            println!("skipped: {error:#}");
            return;
        }
    };
    let world = World::start().await;
    let producer = world.producer().await;
    let mut consumer = world.consumer().await;
    for round in 0..20u8 {
        for number in 0..50u8 {
            let value = vec![round; usize::from(number) * 20];
            drop(producer.send("orders", Some(&[number]), &value, None).await.unwrap());
        }
        producer.flush().await.unwrap();
        consumer.poll(Duration::from_secs(1)).await.unwrap();
        if round % 5 == 0 {
            consumer.commit().await.unwrap();
        }
    }
    // Its lag is told once more: what came since is still a record's age apart.
    consumer.commit().await.unwrap();
    producer.send("nowhere", None, b"lost", None).await.unwrap_err();
    let count = agreement(&world, &probe).await.unwrap();
    assert!(count > 300, "{count} series");

    // A probe that is not told otherwise leaves out all of it.
    tokio::task::block_in_place(|| probe.process.stop(Duration::from_secs(10))).unwrap();
    let cluster = Cluster::new(Binaries::from_env().unwrap(), dir.path()).unwrap();
    let mut probe = cluster.start_probe(&[]).unwrap();
    probe.await_attached(&[std::process::id()]).unwrap();
    producer.send("orders", None, b"one more", Some(0)).await.unwrap().await.unwrap();
    let page = tokio::task::block_in_place(|| probe.scrape()).unwrap();
    assert_eq!(series(&page).into_keys().collect::<Vec<_>>(), [], "counted twice");
    let up = page.sum("streamhouse_process_up", &[]);
    assert!(up >= 1.0, "that it runs is said all the same");
    assert!(page.sum("streamhouse_probe_hits_total", &[]) > 0.0);
    tokio::task::block_in_place(|| probe.process.stop(Duration::from_secs(10))).unwrap();
}
