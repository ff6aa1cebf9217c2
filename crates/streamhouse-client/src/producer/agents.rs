//! Produce requests to agents.

use crate::backoff::Backoff;
use crate::producer::lane::Answer;
use crate::security::{AUTHORIZATION, Connector, sentence};
use futures::future::BoxFuture;
use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::{sync::Arc, time::Duration};
use streamhouse_core::{AsTyped, ErrorKind, limits::MESSAGE_BYTES_MAX};
use streamhouse_proto::v1::{BatchResult, ProduceRequest, ProduceResponse, agent_client::AgentClient};
use tonic::{Code, Status, metadata::AsciiMetadataValue, transport::Channel};

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
pub(crate) struct Agents {
    by_address: HashMap<Arc<str>, Agent>,
    connector: Arc<Connector>,
    transport: Option<Arc<dyn Transport>>,
}

/// An agent that was found, and how many requests wait for its answer.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) in_flight: usize,
    /// Requests in a row that it did not answer.
    failures: u32,
    /// Nothing is sent to it before this time.
    not_before_ns: u64,
    /// Whether a partition points to it.
    is_holder: bool,
}

/// What takes requests to an agent.
#[derive(Clone)]
pub(crate) enum Client {
    Network(AgentClient<Channel>, Arc<Connector>),
    Given(Arc<dyn Transport>),
}

impl Agents {
    /// Reaches agents by `transport`, or over the network.
    pub(crate) fn new(connector: Connector, transport: Option<Arc<dyn Transport>>) -> Agents {
        Agents { by_address: HashMap::new(), connector: Arc::new(connector), transport }
    }

    /// Until when the agent at this address is left alone, since it did not answer.
    pub(crate) fn not_before_ns(&self, address: &str) -> u64 {
        self.by_address.get(address).map_or(0, |agent| agent.not_before_ns)
    }

    /// The agent at an address that a partition points to.
    ///
    /// # Errors
    ///
    /// When no request can be sent there.
    pub(crate) fn holder(&mut self, address: &Arc<str>) -> Result<&mut Agent, Arc<str>> {
        let agent = match self.by_address.entry(Arc::clone(address)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let client = match &self.transport {
                    Some(transport) => Client::Given(Arc::clone(transport)),
                    None => Client::connect(address, &self.connector)?,
                };
                new.insert(Agent { client, in_flight: 0, failures: 0, not_before_ns: 0, is_holder: true })
            }
        };
        agent.is_holder = true;
        Ok(agent)
    }

    /// A request to this address has its answer, or there will be none: then the agent is left alone for a while, by all
    /// lanes, longer each time.
    pub(crate) fn answered(&mut self, address: &str, reached: bool, now_ns: u64, backoff: &mut Backoff) {
        let Some(agent) = self.by_address.get_mut(address) else { return };
        agent.in_flight -= 1;
        if reached {
            (agent.failures, agent.not_before_ns) = (0, 0);
        } else if agent.not_before_ns <= now_ns {
            // Requests that fail together are one failure.
            agent.failures = agent.failures.saturating_add(1);
            let pause = backoff.pause(agent.failures);
            agent.not_before_ns = now_ns.saturating_add(pause.as_nanos() as u64);
        }
        if agent.in_flight == 0 && !agent.is_holder {
            self.by_address.remove(address);
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
    fn connect(address: &str, connector: &Arc<Connector>) -> Result<Client, Arc<str>> {
        let client =
            AgentClient::new(connector.channel(address)?).max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Client::Network(client, Arc::clone(connector)))
    }

    /// Sends the request; once more when the token was refused and there is another now.
    async fn produce(&self, address: &str, message: ProduceRequest) -> Result<ProduceResponse, Status> {
        let (client, connector) = match self {
            Client::Network(client, connector) => (client, connector),
            Client::Given(transport) => return transport.produce(address, message).await,
        };
        let request = connector.request(message.clone()).await;
        let token: Option<AsciiMetadataValue> = request.metadata().get(AUTHORIZATION).cloned();
        let answered = client.clone().produce(request).await.map(tonic::Response::into_inner);
        match answered {
            Err(status)
                if status.code() == Code::Unauthenticated && connector.renewed(token.as_ref()).await =>
            {
                let request = connector.request(message).await;
                Ok(client.clone().produce(request).await?.into_inner())
            }
            answered => answered,
        }
    }

    /// What to do when the agent does not accept who asks.
    fn advice(&self) -> &'static str {
        match self {
            Client::Network(_, connector) => connector.advice(),
            Client::Given(_) => "",
        }
    }
}

/// What became of a request.
pub(crate) struct Reply {
    /// One a batch, whatever happened.
    pub(crate) answers: Vec<Answer>,
    /// Whether the agent has answered at all.
    pub(crate) reached: bool,
}

/// Sends a request and awaits its answer, unless `moved` says before that it is another agent's to give.
pub(crate) async fn produce(
    client: Client,
    address: &str,
    request: ProduceRequest,
    timeout: Duration,
    moved: impl Future<Output = Arc<str>>,
) -> Reply {
    let batches = request.batches.len();
    let all = |answer, reached| Reply { answers: vec![answer; batches], reached };
    // An answer that is there counts, whatever is said at the same time.
    let answered = tokio::select! {
        biased;
        answered = tokio::time::timeout(timeout, client.produce(address, request)) => answered,
        cause = moved => return all(Answer::Moved(cause), false),
    };
    match answered {
        Ok(Ok(ProduceResponse { results })) if results.len() == batches => {
            Reply { answers: results.into_iter().map(of_result).collect(), reached: true }
        }
        Ok(Ok(ProduceResponse { results })) => {
            let given = results.len();
            let cause =
                format!("the agent at {address} gave a wrong number of results: {given}, not {batches}");
            all(Answer::Again(cause.into()), true)
        }
        Ok(Err(status)) => {
            let answer = of_status(address, &status, client.advice());
            let reached = matches!(answer, Answer::Refused(..));
            all(answer, reached)
        }
        Err(_) => {
            let cause = format!("the agent at {address} did not answer within {}", AsTyped(timeout));
            all(Answer::Again(cause.into()), false)
        }
    }
}

fn of_result(result: BatchResult) -> Answer {
    let message = || Arc::from(result.message.as_str());
    match u8::try_from(result.status).ok().map(ErrorKind::from_number) {
        Some(None) if result.status == 0 => Answer::Stored(result.base_offset),
        // `NotFound`: the agent does not know the partition, yet metadata had it.
        Some(Some(ErrorKind::Fenced | ErrorKind::NotFound)) => Answer::Moved(message()),
        Some(Some(kind)) if !kind.is_retryable() => Answer::Refused(kind, message()),
        // A number of a later version: what it means is not known, so the batch may still be taken.
        Some(_) | None => Answer::Again(message()),
    }
}

/// A request fails as a whole only if it could not be read, or its sender may not send it, or it never arrived, or its
/// answer did not.
fn of_status(address: &str, status: &Status, advice: &str) -> Answer {
    let (said, code) = (status.message(), status.code());
    match code {
        Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied => {
            let message = format!("the agent at {address} refuses the request: {said} ({code})");
            Answer::Refused(ErrorKind::Invalid, message.into())
        }
        Code::Unauthenticated => {
            let message = format!("the agent at {address} refuses the token: {said}; {advice}");
            Answer::Refused(ErrorKind::Invalid, message.into())
        }
        _ => Answer::Again(format!("the agent at {address} failed: {} ({code})", sentence(status)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(8), 7)
    }

    #[tokio::test]
    async fn an_agent_goes_when_nothing_points_to_it_and_it_owes_no_answer() {
        let [idle, busy, back] = ["idle:1", "busy:1", "back:1"].map(Arc::<str>::from);
        let mut agents = Agents::new(Connector::default(), None);
        let mut backoff = backoff();
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
        agents.answered(&busy, true, 0, &mut backoff);
        agents.holder(&back).ok().unwrap();
        agents.answered(&back, true, 0, &mut backoff);
        assert_eq!(
            known(&agents),
            [false, true, true],
            "one still owes an answer, to one a partition points again"
        );
        agents.answered(&busy, true, 0, &mut backoff);
        assert_eq!(known(&agents), [false, false, true]);
    }

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_left_alone_longer_each_time() {
        let address = Arc::<str>::from("agent:1");
        let (mut agents, mut backoff) = (Agents::new(Connector::default(), None), backoff());
        agents.holder(&address).ok().unwrap().in_flight = 4;
        let mut pauses = Vec::new();
        for now_ns in [0, 1, 100_000_000_000] {
            agents.answered(&address, false, now_ns, &mut backoff);
            pauses.push(agents.not_before_ns(&address));
        }
        assert!(pauses[0] >= 500_000_000 && pauses[0] <= 1_000_000_000, "{pauses:?}");
        assert_eq!(pauses[1], pauses[0], "requests that fail together are one failure");
        assert!(pauses[2] >= 101_000_000_000, "{pauses:?}");
        agents.answered(&address, true, 200_000_000_000, &mut backoff);
        assert_eq!(agents.not_before_ns(&address), 0);
    }

    #[test]
    fn who_may_not_send_is_told_and_not_tried_again() {
        let refused = |status| match of_status("agent:1", &status, "renew it") {
            Answer::Refused(ErrorKind::Invalid, message) => message,
            other => panic!("{other:?}"),
        };
        let said = refused(Status::unauthenticated("the token has expired"));
        assert_eq!(&*said, "the agent at agent:1 refuses the token: the token has expired; renew it");
        assert!(
            refused(Status::permission_denied("the token has no scope produce")).contains("no scope produce")
        );
        assert!(matches!(of_status("agent:1", &Status::unavailable("gone"), ""), Answer::Again(_)));
    }
}
