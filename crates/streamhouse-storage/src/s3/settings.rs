//! How long S3 is waited for, and what the `AWS_*` variables say.

use super::{
    credentials::{NoCredentials, RoleCredentials},
    http::Connector,
};
use object_store::{
    BackoffConfig, ClientConfigKey, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
};
use std::{collections::BTreeMap, env, fmt, sync::Arc, time::Duration};

/// How long each thing may take. [`Default`] is what an agent needs: whatever happens, a put ends before a lease term of
/// 10 s does, since a flush that is not committed within one is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Limits {
    /// To connect, TLS included; default 2 s: a packet lost on the way is sent again after one.
    pub connect_timeout: Duration,
    /// Until an attempt is answered, and again until the answer is whole, beyond what the bytes take at
    /// [`TRANSFER_BYTES_PER_SECOND`](Self::TRANSFER_BYTES_PER_SECOND); default 3 s: S3 answers in tenths of a second, and
    /// another attempt reaches another of its servers.
    pub answer_timeout: Duration,
    /// First pause before trying again; default 100 ms. Pauses grow up to threefold, at random.
    pub backoff_min: Duration,
    /// Longest pause; default 1 s.
    pub backoff_max: Duration,
    /// No attempt begins later than this after the first, plus a pause; default 5 s: one that begins then and is answered
    /// late still ends in time.
    pub retry_timeout: Duration,
    /// For an operation on one object, attempts and pauses included; default 9 s: below the lease term.
    pub operation_timeout: Duration,
    /// For a role's credentials to be given; default 3 s: where there is no role, nobody may answer at all.
    pub credentials_timeout: Duration,
}

impl S3Limits {
    /// What an attempt's bytes are given time for, beyond the answer timeout: the largest segment has 4 s more.
    pub const TRANSFER_BYTES_PER_SECOND: u64 = 16 << 20;

    /// Most attempts after the first; the time ends them sooner, unless the pauses are made very short.
    const RETRIES_MAX: usize = 50;

    /// How long an attempt waits that moves so many bytes.
    pub(crate) fn wait_for(&self, bytes: u64) -> Duration {
        self.answer_timeout + Duration::from_millis(bytes / (Self::TRANSFER_BYTES_PER_SECOND / 1000))
    }

    fn retries(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.backoff_min,
                max_backoff: self.backoff_max,
                base: 3.0,
            },
            max_retries: Self::RETRIES_MAX,
            retry_timeout: self.retry_timeout,
        }
    }
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(9),
            credentials_timeout: Duration::from_secs(3),
        }
    }
}

/// What an S3 client is told beside the URL.
///
/// The variables are those of the AWS tools, and what object_store adds to them. An empty one counts as not set.
///
/// | variable | meaning |
/// | --- | --- |
/// | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | credentials; without them a role's are asked for: web identity, container, pod, instance (not when `AWS_EC2_METADATA_DISABLED` is `true`); profiles in files are not read |
/// | `AWS_REGION`, else `AWS_DEFAULT_REGION` | default `us-east-1` |
/// | `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL` | another server than Amazon's |
/// | `AWS_ALLOW_HTTP` | `true` for an endpoint without TLS that is not on loopback |
/// | `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` | `true` when the endpoint has the bucket in its name |
/// | `AWS_UNSIGNED_PAYLOAD` | `true` to spare the SHA-256 of what is stored; TLS still protects it |
/// | `AWS_SKIP_SIGNATURE` | `true` to send requests unsigned |
/// | `AWS_SERVER_SIDE_ENCRYPTION`, `AWS_SSE_KMS_KEY_ID`, ... | encryption by the server |
/// | `AWS_PROXY_URL`, else `HTTPS_PROXY`, `NO_PROXY`, ... | a proxy |
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    variables: BTreeMap<String, String>,
    /// How long things may take.
    pub limits: S3Limits,
}

/// Values are left out: secrets are among them.
impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("S3Settings").field("variables", &names).field("limits", &self.limits).finish()
    }
}

impl S3Settings {
    /// What the process's environment says.
    pub fn from_env() -> Self {
        let text = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::from_variables(text)
    }

    /// What these variables say; those whose names do not begin with `AWS_` are ignored.
    pub fn from_variables<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let ours = |(name, value): &(String, String)| name.starts_with("AWS_") && !value.is_empty();
        Self { variables: variables.filter(ours).collect(), limits: S3Limits::default() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
    }

    /// The client for a bucket. The error is what is wrong.
    pub(crate) fn client(&self, bucket: &str) -> Result<AmazonS3, String> {
        let build = |builder: AmazonS3Builder| {
            builder.build().map_err(|error| format!("{error}; correct the AWS_* variables"))
        };
        let has_key = self.has_key()?;
        let is_plain = self.is_plain_endpoint()?;
        let mut builder = AmazonS3Builder::new()
            .with_config(client_key(ClientConfigKey::ConnectTimeout), seconds(self.limits.connect_timeout))
            // The attempts have their own ends.
            .with_config(client_key(ClientConfigKey::Timeout), seconds(self.limits.operation_timeout))
            // One object is removed at a time, and not every server can remove many.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
        for (name, value) in &self.variables {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(self.limits.retries())
            .with_http_connector(Connector { limits: self.limits.clone() });
        if is_plain {
            builder = builder.with_allow_http(true);
        }
        if is_plain && has_key {
            // Nothing will be encrypted, so a machine without certificates will do.
            builder = builder.with_config(client_key(ClientConfigKey::NoSystemCertificates), "true");
        }
        let client = build(builder.clone())?;
        if has_key {
            return Ok(client);
        }
        let provider = client.credentials().clone();
        let role = RoleCredentials { provider, timeout: self.limits.credentials_timeout };
        build(builder.with_credentials(Arc::new(role)))
    }

    /// Whether requests are signed with a key that is given, or not at all; else a role's credentials are asked for.
    fn has_key(&self) -> Result<bool, String> {
        if self.is_true("AWS_SKIP_SIGNATURE") {
            return Ok(true);
        }
        match (self.get("AWS_ACCESS_KEY_ID"), self.get("AWS_SECRET_ACCESS_KEY")) {
            (Some(_), Some(_)) => Ok(true),
            (Some(_), None) => {
                Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both".to_owned())
            }
            (None, Some(_)) => {
                Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not; set both".to_owned())
            }
            (None, None) if self.is_true("AWS_EC2_METADATA_DISABLED") && !self.has_other_role() => {
                let problem = "AWS_EC2_METADATA_DISABLED is set and no other role is named".to_owned();
                Err(NoCredentials { problem }.to_string())
            }
            (None, None) => Ok(false),
        }
    }

    fn has_other_role(&self) -> bool {
        [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ]
        .iter()
        .any(|name| self.get(name).is_some())
    }

    /// Whether the endpoint is one without TLS; only loopback is without being told.
    fn is_plain_endpoint(&self) -> Result<bool, String> {
        let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        let Some((name, endpoint)) = names.iter().find_map(|name| Some((*name, self.get(name)?))) else {
            return Ok(false);
        };
        let url = reqwest::Url::parse(endpoint).ok().filter(|url| url.has_host());
        match url.as_ref().map(|url| (url.scheme(), url)) {
            Some(("https", _)) => Ok(false),
            Some(("http", url)) if is_loopback(url) || self.is_true("AWS_ALLOW_HTTP") => Ok(true),
            Some(("http", _)) => Err(format!(
                "{name} is {endpoint}, where anybody on the way can read and change what is stored; give an https:// \
                 endpoint, or set AWS_ALLOW_HTTP=true if the network is safe"
            )),
            _ => Err(format!("{name} is {endpoint:?}, which is no http:// or https:// URL; correct it")),
        }
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn client_key(key: ClientConfigKey) -> AmazonS3ConfigKey {
    AmazonS3ConfigKey::Client(key)
}

/// In object_store's spelling.
fn seconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "my secret")];

    fn settings(variables: &[(&str, &str)]) -> S3Settings {
        S3Settings::from_variables(variables.iter().copied())
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        settings(variables).client("logs").unwrap_err()
    }

    #[test]
    fn every_way_to_name_a_server_and_a_key_makes_a_client() {
        for more in [
            &[][..],
            &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")],
            &[("AWS_ENDPOINT_URL", "http://localhost:9000/")],
            &[("AWS_ENDPOINT_URL", "http://[::1]:9000")],
            &[("AWS_ENDPOINT_URL_S3", "https://s3.example.org")],
            &[("AWS_ENDPOINT_URL", "http://minio:9000"), ("AWS_ALLOW_HTTP", "True")],
            &[("AWS_REGION", "eu-central-1"), ("AWS_SESSION_TOKEN", "token"), ("AWS_EXECUTION_ENV", "other")],
            &[("AWS_ENDPOINT_URL", "")],
        ] {
            let variables: Vec<_> = KEY.iter().chain(more).copied().collect();
            settings(&variables).client("logs").unwrap();
        }
        settings(&[("AWS_SKIP_SIGNATURE", "true")]).client("logs").unwrap();
        settings(&[("AWS_ACCESS_KEY_ID", ""), ("HOME", "/root")]).client("logs").unwrap();
    }

    #[test]
    fn what_makes_no_client_is_said_with_the_variable() {
        for (variables, expected) in [
            (&KEY[..1], "AWS_SECRET_ACCESS_KEY is not; set both"),
            (&KEY[1..], "AWS_ACCESS_KEY_ID is not; set both"),
            (&[("AWS_EC2_METADATA_DISABLED", "true")], "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            (&[KEY[0], KEY[1], ("AWS_ENDPOINT_URL", "http://minio:9000")], "set AWS_ALLOW_HTTP=true"),
            (
                &[KEY[0], KEY[1], ("AWS_ENDPOINT_URL_S3", "minio:9000")],
                "AWS_ENDPOINT_URL_S3 is \"minio:9000\"",
            ),
            (&[KEY[0], KEY[1], ("AWS_ENDPOINT_URL", "nowhere")], "no http:// or https:// URL"),
            (&[KEY[0], KEY[1], ("AWS_SKIP_SIGNATURE", "perhaps")], "correct the AWS_* variables"),
        ] {
            let problem = problem(variables);
            assert!(problem.contains(expected), "{problem}");
            assert!(!problem.contains("my secret"), "{problem}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", settings(&KEY));
        assert!(printed.contains("AWS_SECRET_ACCESS_KEY") && !printed.contains("my secret"), "{printed}");
    }

    /// A lease term is 10 s unless it is told otherwise.
    #[test]
    fn an_operation_ends_before_a_lease_term() {
        let limits = S3Limits::default();
        assert!(limits.operation_timeout < Duration::from_secs(10));
        // The last attempt may begin a pause after the time for retries is over, and is answered late.
        let last = limits.retry_timeout + limits.backoff_max + limits.answer_timeout;
        assert!(last <= limits.operation_timeout, "the last attempt would be cut off");
        let largest = limits.wait_for(64 << 20);
        assert_eq!(largest, Duration::from_millis(7000));
    }
}
