//! Calls agents with the crate `runagent`, as its users do: one JSON request on each line of stdin, one answer on
//! stdout, in the forms that tests/compat/client.py describes. It fetches the architecture before each call.

use futures::StreamExt;
use runagent::{RunAgentClient, RunAgentClientConfig, RunAgentError, RunAgentResult};
use serde_json::{json, Value};
use std::io::BufRead;

fn words<'a>(request: &'a Value, name: &str) -> &'a str {
    request[name].as_str().unwrap_or_default()
}

async fn call(request: &Value, answer: &mut Value) -> RunAgentResult<()> {
    let tag = words(request, "tag");
    let mut config = RunAgentClientConfig::new(words(request, "agent"), tag)
        .with_local(false)
        .with_base_url(words(request, "base_url"));
    if let Some(key) = request["api_key"].as_str() {
        config = config.with_api_key(key);
    }
    let none = serde_json::Map::new();
    let kwargs = request["kwargs"].as_object().unwrap_or(&none);
    let kwargs: Vec<(&str, Value)> = kwargs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let args = request["args"].as_array().cloned().unwrap_or_default();

    let client = RunAgentClient::new(config).await?;
    if !tag.ends_with("_stream") {
        answer["result"] = client.run_with_args(&args, &kwargs).await?;
        return Ok(());
    }
    answer["chunks"] = json!([]);
    let mut stream = client.run_stream_with_args(&args, &kwargs).await?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if let Some(chunks) = answer["chunks"].as_array_mut() {
            chunks.push(chunk);
        }
    }
    Ok(())
}

fn described(error: &RunAgentError) -> Value {
    match error {
        RunAgentError::Execution { code, message, suggestion, .. } => {
            json!({"type": "Execution", "code": code, "message": message, "suggestion": suggestion})
        }
        // The other kinds have a message only, and their text begins with what they are.
        other => json!({"type": "other", "code": null, "message": other.to_string(), "suggestion": null}),
    }
}

#[tokio::main]
async fn main() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut answer = json!({});
        match serde_json::from_str::<Value>(&line) {
            Ok(request) => {
                if let Err(error) = call(&request, &mut answer).await {
                    answer["error"] = described(&error);
                }
            }
            Err(error) => answer["error"] = json!({"type": "request", "message": error.to_string()}),
        }
        println!("{answer}");
    }
}
