//! Who may call what: bearer tokens, looked at before anything of a request's body is.

mod expiry;
mod tokens;

pub(crate) use tokens::Tokens;

use crate::watched::Watched;
use futures::future::{Either, Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use streamhouse_core::{Clock, ErrorKind};
use streamhouse_hooks::{Started, Write, write};
use tokens::{Refusal, Scope, TOKEN_BYTES_MAX};
use tonic::Status;
use tonic::codegen::http::{self, HeaderMap, header::AUTHORIZATION};
use tonic::codegen::{Body, Service};

/// The path of `Produce`.
const PRODUCE: &str = "/streamhouse.v1.Agent/Produce";

/// The scopes of which a token must have one to call what is at the path; none: any valid token will do.
fn needed(path: &str) -> &'static [Scope] {
    let metadata = path.strip_prefix("/streamhouse.v1.Metadata/");
    match metadata {
        None if path == PRODUCE => &[Scope::Produce],
        Some("NewProducerId") => &[Scope::Produce],
        Some("CommitOffsets") => &[Scope::Consume, Scope::Admin],
        Some("JoinGroup" | "HeartbeatMember" | "ClaimPartitions" | "ReleaseClaims" | "LeaveGroup") => {
            &[Scope::Consume]
        }
        Some("CreateTopic" | "DeleteGroup" | "DeleteTopic" | "SetRetention") => &[Scope::Admin],
        // Reads, and what there is not.
        None | Some(_) => &[],
    }
}

/// Who is let in.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) tokens: Arc<Watched<Tokens>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// For requests that are refused: nothing else of the agent sees them.
    pub(crate) scope: Arc<streamhouse_hooks::Scope>,
}

impl Gate {
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        let token = bearer(headers)?;
        let scopes = self.tokens.get().check(token, self.clock.unix_ms()).map_err(|refusal| {
            Status::unauthenticated(match refusal {
                Refusal::Unknown => "the token is none that this agent knows; ask who runs it for one",
                Refusal::Expired => "the token has expired; ask who runs the agent for a new one",
            })
        })?;
        let needed = needed(path);
        if needed.is_empty() || needed.iter().any(|scope| scopes.has(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = needed.iter().map(|scope| scope.name()).collect();
        Err(Status::permission_denied(format!(
            "this needs a token with the scope {}; the one that was sent has {scopes}",
            names.join(" or ")
        )))
    }

    /// Tells whoever looks of a produce request that was refused: it is a batch of nothing.
    fn tell(&self, started: Started, path: &str) {
        if path == PRODUCE {
            let status = ErrorKind::Invalid.number();
            write(&self.scope, Write { records: 0, bytes: 0, started, status });
        }
    }
}

/// The token of a request, which has one at most.
fn bearer(headers: &HeaderMap) -> Result<&str, Status> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (None, _) => {
            return Err(Status::unauthenticated(
                "this agent serves who has a token; send one as `authorization: Bearer TOKEN` (--token-file FILE)",
            ));
        }
        (Some(value), None) => value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            (scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX).then_some(token)
        }),
        (Some(_), Some(_)) => None,
    };
    token.ok_or_else(|| {
        Status::unauthenticated(
            "the authorization header is not `Bearer TOKEN` with a token of at most 512 characters",
        )
    })
}

/// A service behind a gate; without one everybody is let in.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Option<Gate>,
}

impl<S> Gated<S> {
    pub(crate) fn new(inner: S, gate: Option<Gate>) -> Gated<S> {
        Gated { inner, gate }
    }
}

impl<S, B, R> Service<http::Request<B>> for Gated<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Body + Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if let Some(gate) = &self.gate {
            let (started, path) = (write::start(), request.uri().path());
            if let Err(refused) = gate.check(path, request.headers()) {
                gate.tell(started, path);
                tracing::debug!(path, "{}", refused.message());
                return Either::Right(ready(Ok(refused.into_http())));
            }
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;
    use streamhouse_core::ManualClock;
    use streamhouse_hooks::{Instance, Role};

    const PRODUCER: &str = "produceproduceproduce";
    const CONSUMER: &str = "consumeconsumeconsume";
    const ADMIN: &str = "adminadminadminadmin";

    fn gate(dir: &tempfile::TempDir) -> (Gate, Arc<ManualClock>) {
        let path = dir.path().join("tokens");
        let tokens = format!("{PRODUCER} produce 1970-01-02T00:00:00Z\n{CONSUMER} consume\n{ADMIN} admin\n");
        std::fs::write(&path, tokens).unwrap();
        let tokens = Arc::new(Watched::open(vec![path], Tokens::read).unwrap());
        let clock = Arc::new(ManualClock::default());
        let scope = Instance::new(Role::Agent, "test", "").scope("", None);
        let scope = Arc::new(scope);
        (Gate { tokens, clock: Arc::clone(&clock) as Arc<dyn Clock>, scope }, clock)
    }

    fn with_token(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn check(gate: &Gate, path: &str, token: &str) -> Result<(), Status> {
        gate.check(path, &with_token(&format!("Bearer {token}")))
    }

    /// Every method of both services and the scopes that let one call it, as the .proto files say.
    fn methods() -> Vec<(String, Vec<String>)> {
        let protos =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../streamhouse-proto/proto/streamhouse/v1");
        let mut methods = Vec::new();
        for (file, service) in [("agent.proto", "Agent"), ("metadata.proto", "Metadata")] {
            let text = std::fs::read_to_string(protos.join(file)).unwrap();
            for line in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                let name = line.split('(').next().unwrap();
                let scopes = line.split_once("// ").map_or("", |(_, scopes)| scopes);
                let scopes = scopes.split(" or ").filter(|scope| !scope.is_empty()).map(str::to_owned);
                methods.push((format!("/streamhouse.v1.{service}/{name}"), scopes.collect()));
            }
        }
        methods
    }

    #[test]
    fn a_call_needs_the_scope_that_its_service_says() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, _) = gate(&dir);
        let methods = methods();
        assert_eq!(methods.len(), 1 + 20);
        for (path, scopes) in methods {
            for (token, scope) in [(PRODUCER, "produce"), (CONSUMER, "consume"), (ADMIN, "admin")] {
                let is_let_in = scopes.is_empty() || scopes.iter().any(|each| each == scope);
                match check(&gate, &path, token) {
                    Ok(()) => assert!(is_let_in, "{path}: {scope}"),
                    Err(status) => {
                        assert!(!is_let_in, "{path}: {scope}");
                        assert_eq!(status.code(), tonic::Code::PermissionDenied);
                        assert!(status.message().contains(&scopes.join(" or ")), "{status}");
                    }
                }
            }
        }
    }

    #[test]
    fn who_has_no_good_token_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, clock) = gate(&dir);
        let refused = |headers: &HeaderMap| {
            let status = gate.check(PRODUCE, headers).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(!status.message().contains(&PRODUCER[..16]), "{status}");
            status.message().to_owned()
        };
        assert!(refused(&HeaderMap::new()).contains("Bearer TOKEN"));
        let garbage =
            [PRODUCER, "Bearer", "Basic dXNlcg==", &format!("Bearer {}", "x".repeat(10_000)), "\u{e9} x"];
        for garbage in garbage {
            let headers = HeaderMap::from_iter([(
                AUTHORIZATION,
                http::HeaderValue::from_bytes(garbage.as_bytes()).unwrap(),
            )]);
            assert!(refused(&headers).contains("is not `Bearer TOKEN`"), "{garbage}");
        }
        let mut two = with_token(&format!("Bearer {PRODUCER}"));
        two.append(AUTHORIZATION, "Bearer other".parse().unwrap());
        assert!(refused(&two).contains("is not `Bearer TOKEN`"));
        assert!(refused(&with_token(&format!("Bearer {PRODUCER}x"))).contains("none that this agent knows"));
        assert!(gate.check(PRODUCE, &with_token(&format!("bearer {PRODUCER}"))).is_ok());
        clock.advance(Duration::from_secs(24 * 3600));
        assert!(refused(&with_token(&format!("Bearer {PRODUCER}"))).contains("expired"));
    }
}
