//! Produce requests to agents.

use crate::producer::lane::Answer;
use futures::future::BoxFuture;
use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::{sync::Arc, time::Duration};
use streamhouse_core::{AsTyped, ErrorKind, limits::MESSAGE_BYTES_MAX};
use streamhouse_proto::v1::{BatchResult, ProduceRequest, ProduceResponse, agent_client::AgentClient};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection with requests on it is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How produce requests get to agents when it is not over the network: what a simulation puts itself in place of.
#[doc(hidden)]
pub trait Transport: Send + Sync {
    /// Sends a request to the agent at `address`. When it is dropped before its end, the request may arrive or not.
    fn produce(
        &self,
        address: &str,
        request: ProduceRequest,
    ) -> BoxFuture<'static, Result<ProduceResponse, Status>>;
}

/// The agents that partitions point to, and those that still owe an answer.
#[derive(Default)]
pub(crate) struct Agents {
    by_address: HashMap<Arc<str>, Agent>,
    transport: Option<Arc<dyn Transport>>,
}

/// An agent that was found, and how many requests wait for its answer.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) in_flight: usize,
    /// Whether a partition points to it.
    is_holder: bool,
}

/// What takes requests to an agent.
#[derive(Clone)]
pub(crate) enum Client {
    Network(AgentClient<Channel>),
    Given(Arc<dyn Transport>),
}

impl Agents {
    /// Reaches agents by `transport`, or over the network.
    pub(crate) fn new(transport: Option<Arc<dyn Transport>>) -> Agents {
        Agents { transport, ..Agents::default() }
    }

    /// The agent at an address that a partition points to.
    pub(crate) fn holder(&mut self, address: &Arc<str>) -> Result<&mut Agent, Arc<str>> {
        let agent = match self.by_address.entry(Arc::clone(address)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let client = match &self.transport {
                    Some(transport) => Client::Given(Arc::clone(transport)),
                    None => Client::connect(address)?,
                };
                new.insert(Agent { client, in_flight: 0, is_holder: true })
            }
        };
        agent.is_holder = true;
        Ok(agent)
    }

    /// A request to this address has its answer, or has failed.
    pub(crate) fn answered(&mut self, address: &str) {
        if let Some(agent) = self.by_address.get_mut(address) {
            agent.in_flight -= 1;
            if agent.in_flight == 0 && !agent.is_holder {
                self.by_address.remove(address);
            }
        }
    }

    /// Disconnects from agents that no partition points to any more, each once it owes no answer.
    pub(crate) fn keep(&mut self, holders: &HashSet<&str>) {
        self.by_address.retain(|address, agent| {
            agent.is_holder = holders.contains(&**address);
            agent.is_holder || agent.in_flight > 0
        });
    }
}

impl Client {
    /// Of an agent at `host:port`; connects with the first request.
    fn connect(address: &str) -> Result<Client, Arc<str>> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("the agent's address {address:?} is not usable: {error}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let client = AgentClient::new(endpoint.connect_lazy()).max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Client::Network(client))
    }

    async fn produce(self, address: &str, request: ProduceRequest) -> Result<ProduceResponse, Status> {
        match self {
            Client::Network(mut client) => client.produce(request).await.map(tonic::Response::into_inner),
            Client::Given(transport) => transport.produce(address, request).await,
        }
    }
}

/// Sends a request; one answer a batch, whatever happens.
pub(crate) async fn produce(
    client: Client,
    address: &str,
    request: ProduceRequest,
    timeout: Duration,
) -> Vec<Answer> {
    let batches = request.batches.len();
    let answers = match tokio::time::timeout(timeout, client.produce(address, request)).await {
        Ok(Ok(ProduceResponse { results })) => {
            if results.len() == batches {
                return results.into_iter().map(of_result).collect();
            }
            Answer::Again(
                format!(
                    "the agent at {address} gave a wrong number of results: {}, not {batches}",
                    results.len()
                )
                .into(),
            )
        }
        Ok(Err(status)) => of_status(address, &status),
        Err(_) => {
            Answer::Again(format!("the agent at {address} did not answer within {}", AsTyped(timeout)).into())
        }
    };
    vec![answers; batches]
}

fn of_result(result: BatchResult) -> Answer {
    let message = || Arc::from(result.message.as_str());
    match u8::try_from(result.status).ok().map(ErrorKind::from_number) {
        Some(None) if result.status == 0 => Answer::Stored(result.base_offset),
        Some(Some(kind)) if !kind.is_retryable() && kind != ErrorKind::NotFound => {
            Answer::Refused(kind, message())
        }
        // `NotFound`: the agent does not know the partition, yet metadata had it; ask again who holds it. A number of a
        // later version: what it means is not known, so the batch may still be taken.
        Some(_) | None => Answer::Again(message()),
    }
}

/// A request fails as a whole only if it could not be read, or never arrived, or its answer did not.
fn of_status(address: &str, status: &Status) -> Answer {
    let message = format!("the agent at {address} failed: {} ({})", status.message(), status.code());
    match status.code() {
        Code::InvalidArgument | Code::Unimplemented => Answer::Refused(ErrorKind::Invalid, message.into()),
        _ => Answer::Again(message.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_goes_when_nothing_points_to_it_and_it_owes_no_answer() {
        let [idle, busy, back] = ["idle:1", "busy:1", "back:1"].map(Arc::<str>::from);
        let mut agents = Agents::default();
        for address in [&idle, &busy, &back] {
            agents.holder(address).ok().unwrap();
        }
        agents.holder(&busy).ok().unwrap().in_flight = 2;
        agents.holder(&back).ok().unwrap().in_flight = 1;
        let known = |agents: &Agents| -> Vec<bool> {
            [&idle, &busy, &back].map(|address| agents.by_address.contains_key(address)).to_vec()
        };

        agents.keep(&HashSet::from(["idle:1", "busy:1", "back:1"]));
        assert_eq!(known(&agents), [true, true, true]);
        agents.keep(&HashSet::new());
        assert_eq!(known(&agents), [false, true, true]);
        agents.answered(&busy);
        agents.holder(&back).ok().unwrap();
        agents.answered(&back);
        assert_eq!(
            known(&agents),
            [false, true, true],
            "one still owes an answer, to one a partition points again"
        );
        agents.answered(&busy);
        assert_eq!(known(&agents), [false, false, true]);
    }
}
