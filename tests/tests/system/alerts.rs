//! What goes wrong for real arrives at Alertmanager, and so does that it is over.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use streamhouse_tests::s3::Faults;
use streamhouse_tests::{Alerting, Cluster, Process, S3Server, poll_until};

/// How long an alert may take to come or to go: windows of up to a minute, in seconds, several times over.
const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders";

/// An agent on an S3 server, a producer, a consumer, a probe, and both servers of Prometheus.
struct Demo {
    cluster: Cluster,
    s3: S3Server,
    agent: streamhouse_tests::Agent,
    alerting: Alerting,
    _probe: streamhouse_tests::Probe,
}

impl Demo {
    fn start(cluster: &Cluster) -> Result<Demo> {
        let mut cluster = cluster.clone();
        cluster.agent_id = Some("agent-1".to_owned());
        let (objects, log) = (cluster.path("s3"), cluster.path("s3.log"));
        let s3 = S3Server::start(&cluster.binaries.s3_server()?, &objects, 1, &log)?;
        cluster.s3 = Some(s3.address());
        let probe = cluster.start_probe(&[])?;
        let agent = cluster.start_agent()?;
        cluster.create_topic(&agent, TOPIC, 1)?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let dir = cluster.path("alerting");
        std::fs::create_dir_all(&dir)?;
        let alerting = Alerting::start(&deploy, &dir, probe.http, agent.http)?;
        Ok(Demo { cluster, s3, agent, alerting, _probe: probe })
    }

    /// A thousand records a second. One that is not acknowledged in two seconds is lost.
    fn produce(&self) -> Result<Process> {
        let arguments = ["produce", TOPIC, "--generate", "--rate", "1000", "--client-id", "web-1"];
        let mut command = self.cluster.cli(&arguments);
        command.args(["--delivery-timeout", "2s", "--linger", "20ms"]);
        command.stderr(std::fs::File::create(self.cluster.path("produce.log"))?);
        Process::start("produce", &mut command)
    }

    fn consume(&self) -> Result<Process> {
        let mut command =
            self.cluster.cli(&["consume", TOPIC, "--group", "billing", "--quiet", "--commit-every", "1s"]);
        Process::start("consume", command.stderr(std::fs::File::create(self.cluster.path("consume.log"))?))
    }

    fn firing(&self, alert: &str) -> Result<()> {
        let fired = self.alerting.wait(alert, "firing", LIMIT)?;
        let runbook = fired.annotations.get("runbook").context("an alert without a runbook")?;
        ensure!(runbook.len() > 40, "{alert}: {runbook}");
        Ok(())
    }

    fn resolved(&self, alert: &str) -> Result<()> {
        self.alerting.wait(alert, "resolved", LIMIT).map(drop)
    }
}

/// Five things go wrong, one after the other, and are made good again.
pub(crate) fn alerts_come_and_go(cluster: &Cluster) -> Result<()> {
    let mut demo = Demo::start(cluster)?;
    let mut producer = demo.produce()?;
    let mut consumer = demo.consume()?;
    // As much history as the comparison with before needs.
    poll_until("half an hour of history", LIMIT, || {
        let samples = demo.alerting.query("count_over_time(streamhouse:topic_records:rate[60s])")?;
        ensure!(samples >= 30.0, "{samples} samples");
        Ok(())
    })?;

    producer.stop(LIMIT)?;
    demo.firing("ProducerThroughputDrop")?;
    producer = demo.produce()?;
    demo.resolved("ProducerThroughputDrop")?;

    // It hangs: its process is there and its own gauges stand still.
    consumer.signal(Signal::STOP);
    demo.firing("ConsumerStalled")?;
    demo.firing("HighConsumerLag")?;
    consumer.signal(Signal::CONT);
    demo.resolved("ConsumerStalled")?;

    let slow = Faults { stall_percent: 100, stall: Duration::from_millis(900), ..Faults::default() };
    demo.s3.set(&slow)?;
    demo.firing("HighAgentWriteLatency")?;
    demo.s3.set(&Faults::default())?;
    demo.resolved("HighAgentWriteLatency")?;

    demo.s3.set(&Faults { error_percent: 100, ..Faults::default() })?;
    demo.firing("CriticalProducerErrorRate")?;
    demo.s3.set(&Faults::default())?;
    demo.resolved("CriticalProducerErrorRate")?;

    demo.agent.process.kill()?;
    demo.firing("AgentDown")?;
    // At the same addresses: Prometheus takes what does not answer there for an agent that is down.
    demo.agent = demo.cluster.start_agent_again(&demo.agent)?;
    demo.resolved("AgentDown")?;

    consumer.kill()?;
    producer.kill()?;
    Ok(())
}
