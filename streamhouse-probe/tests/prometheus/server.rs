//! A Prometheus of its own for a test.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::target::Target;

/// A server, ended when dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these targets, each under the name of its job; `None` where there is no such program.
    pub(crate) fn start(features: &[&str], targets: &[(&str, &Target)]) -> Option<Prometheus> {
        let directory = TempDir::new().expect("a temporary directory");
        let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n".to_owned();
        for (job, target) in targets {
            let address = target.address;
            writeln!(config, "- job_name: {job}\n  static_configs:\n  - targets: ['{address}']")
                .expect("writing to a string cannot fail");
        }
        let config_file = directory.path().join("prometheus.yml");
        std::fs::write(&config_file, config).expect("written");
        // Taken by nobody else in the moment until the server takes it, or the test fails and says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.expect("a free port");
        let log = File::create(directory.path().join("log")).expect("created");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !features.is_empty() {
            command.arg(format!("--enable-feature={}", features.join(",")));
        }
        Some(Prometheus { child: command.spawn().ok()?, address, directory })
    }

    /// The numbers that a query answers; none while the server does not answer.
    pub(crate) fn query(&self, query: &str) -> Vec<f64> {
        self.get(query).unwrap_or_default()
    }

    fn get(&self, query: &str) -> Option<Vec<f64>> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let answer: serde_json::Value = serde_json::from_str(body).ok()?;
        let results = answer["data"]["result"].as_array()?;
        results.iter().map(|result| result["value"][1].as_str()?.parse().ok()).collect()
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Nothing is left to end when it has ended itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
