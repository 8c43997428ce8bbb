use http::Response;
use serde_json::Value;

use crate::api::Call;
use crate::error::{ApiError, Subject};
use crate::logs::{LogError, LogRequest};
use crate::respond::{self, Body};

/// Streams the log of one of a pod's containers.
pub async fn log(call: &Call) -> Result<Response<Body>, ApiError> {
    let key = call.key();
    let pod = call.api.store.get(&key);
    let pod = pod.ok_or_else(|| ApiError::NotFound(Subject::new(call.resource(), &key.name)))?;
    let request = LogRequest {
        container: container(&pod, &key.name, call.query.text("container"))?,
        namespace: key.namespace,
        pod: key.name,
        uid: pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        follow: call.query.flag("follow"),
        tail_lines: call.query.number("tailLines")?,
        timestamps: call.query.flag("timestamps"),
    };
    let log = call.api.logs.open(request).await.map_err(|error| match error {
        LogError::Waiting { .. } => ApiError::BadRequest(error.to_string()),
        LogError::Unreadable { .. } => ApiError::Internal(error.to_string()),
    })?;
    let mut closing = call.api.closing.clone();
    let log = futures::StreamExt::take_until(log, async move {
        closing.wait().await;
    });
    Ok(respond::stream("text/plain", log))
}

/// The container that is asked for, or the only one.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, ApiError> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let names_in = |list: &str| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    if !asked.is_empty() {
        return match lists.into_iter().flat_map(names_in).find(|n| n == asked) {
            Some(container) => Ok(container),
            None => Err(ApiError::BadRequest(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    let names = names_in("containers");
    match names.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(ApiError::BadRequest(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
    }
}
