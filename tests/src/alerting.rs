//! Debian's Prometheus and Alertmanager with the configuration of `deploy`, in times that a test can wait for.

use crate::http::free_address;
use crate::process::{Process, poll_until};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a server may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Both servers, and a receiver of what Alertmanager sends.
pub struct Alerting {
    received: Arc<Mutex<Vec<Alert>>>,
    prometheus: SocketAddr,
    _processes: [Process; 2],
}

/// An alert as Alertmanager sends it.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// Its name is `alertname`.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Message {
    alerts: Vec<Alert>,
}

impl Alerting {
    /// Starts both: `deploy` is the directory of our configuration, `dir` takes what they write. Every minute of the rules is
    /// a second.
    ///
    /// # Errors
    ///
    /// When one is not installed, or does not come up; names its log.
    pub fn start(deploy: &Path, dir: &Path, probe: SocketAddr, agent: SocketAddr) -> Result<Alerting> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (receiver, received) = (listener.local_addr()?, Arc::<Mutex<Vec<Alert>>>::default());
        let kept = Arc::clone(&received);
        std::thread::spawn(move || receive(&listener, &kept));
        let [manager, prometheus] = [free_address()?, free_address()?];

        let write = |name: &str, text: String| -> Result<PathBuf> {
            std::fs::write(dir.join(name), text)?;
            Ok(dir.join(name))
        };
        let read = |name: &str| std::fs::read_to_string(deploy.join(name)).context(name.to_owned());
        write("alerts.yml", seconds(&read("prometheus/alerts.yml")?))?;
        let addresses = [("localhost:9465", probe), ("localhost:8080", agent), ("localhost:9093", manager)];
        let config = replaced(read("prometheus/prometheus.yml")?, &addresses)?.replace("15s", "1s");
        let config = write("prometheus.yml", config)?;
        let routes = replaced(read("alertmanager/alertmanager.yml")?, &[("localhost:9094", receiver)])?;
        let routes = ["30s", "5s", "5m", "1m"]
            .into_iter()
            .fold(routes, |text, time| text.replace(&format!(" {time}\n"), " 1s\n"));
        let routes = write("alertmanager.yml", routes)?;

        let manager_process = start(
            dir,
            "prometheus-alertmanager",
            &[
                format!("--config.file={}", routes.display()),
                format!("--storage.path={}", dir.join("alertmanager").display()),
                format!("--web.listen-address={manager}"),
                "--cluster.listen-address=".to_owned(),
            ],
        )?;
        let prometheus_process = start(
            dir,
            "prometheus",
            &[
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
                format!("--web.listen-address={prometheus}"),
                // The cases of promtool know classic histograms only.
                "--enable-feature=native-histograms".to_owned(),
            ],
        )?;
        let alerting = Alerting { received, prometheus, _processes: [manager_process, prometheus_process] };
        for (name, address) in [("Alertmanager", manager), ("Prometheus", prometheus)] {
            poll_until(&format!("{name} to be ready"), START_LIMIT, || {
                let ready = crate::get(address, "/-/ready")?;
                ensure!(ready.status == 200, "{}: see its log in {}", ready.body, dir.display());
                Ok(())
            })?;
        }
        Ok(alerting)
    }

    /// Waits until Alertmanager has sent this of an alert, and forgets all that it had sent before.
    ///
    /// # Errors
    ///
    /// When it does not come; names those that did.
    pub fn wait(&self, alert: &str, status: &str, limit: Duration) -> Result<Alert> {
        poll_until(&format!("{alert} to be {status}"), limit, || {
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            let is_it = |one: &Alert| one.status == status && one.label("alertname") == alert;
            match received.iter().position(is_it) {
                Some(at) => Ok(received.drain(..=at).next_back().context("the last of some")?),
                None => {
                    let names =
                        received.iter().map(|one| format!("{} {}", one.label("alertname"), one.status));
                    bail!("so far: {:?}", names.collect::<Vec<_>>())
                }
            }
        })
    }

    /// The one number that a query gives; 0 when it gives none.
    ///
    /// # Errors
    ///
    /// When Prometheus does not answer.
    pub fn query(&self, query: &str) -> Result<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = crate::get(self.prometheus, &format!("/api/v1/query?query={encoded}"))?;
        let answer: serde_json::Value = serde_json::from_str(&answer.body)?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.map(str::parse).transpose()?.unwrap_or(0.0))
    }
}

impl Alert {
    /// A label's value, or the empty string.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

fn start(dir: &Path, program: &str, arguments: &[String]) -> Result<Process> {
    let log = std::fs::File::create(dir.join(format!("{program}.log")))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process::start(program, &mut command).with_context(|| {
        format!("{program} does not start; run `cargo xtask setup`, and this through `cargo xtask test`")
    })
}

/// Each address in place of another, which must be there.
fn replaced(mut text: String, addresses: &[(&str, SocketAddr)]) -> Result<String> {
    for (from, to) in addresses {
        ensure!(text.contains(from), "{from} is not in the configuration any more");
        text = text.replace(from, &to.to_string());
    }
    Ok(text)
}

/// Minutes as seconds: every `m` behind a number.
fn seconds(rules: &str) -> String {
    let mut text = String::with_capacity(rules.len());
    let mut after_digit = false;
    let mut characters = rules.chars().peekable();
    while let Some(character) = characters.next() {
        let ends = characters.peek().is_none_or(|next| !next.is_alphanumeric());
        text.push(if character == 'm' && after_digit && ends { 's' } else { character });
        after_digit = character.is_ascii_digit();
    }
    text
}

/// Takes what Alertmanager sends, until the process ends.
fn receive(listener: &TcpListener, received: &Mutex<Vec<Alert>>) {
    for stream in listener.incoming().flatten() {
        if let Ok(message) = read(stream) {
            received.lock().unwrap_or_else(PoisonError::into_inner).extend(message.alerts);
        }
    }
}

fn read(stream: TcpStream) -> Result<Message> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            Some(_) => {}
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_become_seconds_and_words_stay() {
        assert_eq!(
            seconds("for: 5m\nrate(x[60m] offset 10m) 5min 10mb m p99m"),
            "for: 5s\nrate(x[60s] offset 10s) 5min 10mb m p99s"
        );
    }
}
