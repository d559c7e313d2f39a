//! A gRPC client in Rust, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_xds::{XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};

#[derive(Clone, PartialEq, prost::Message)]
struct SayHelloRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SayHelloResponse {
    #[prost(string, tag = "2")]
    hostname: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Command {
    #[serde(rename = "do")]
    action: String,
    channel: String,
    target: String,
    times: usize,
    concurrency: usize,
    parallelism: usize,
    interval_seconds: f64,
    method: String,
    metadata: HashMap<String, String>,
    timeout_seconds: f64,
    // tonic has no wait_for_ready: calls wait for the first configuration in any case.
}

#[derive(Clone, Serialize)]
struct Failure {
    code: String,
    details: String,
    milliseconds: f64,
}

/// A call that has ended: the host that replied, or the failure.
struct Outcome {
    reply: Result<String, Failure>,
    milliseconds: f64,
}

struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<Outcome>>>,
}

#[derive(Default)]
struct Client {
    channels: HashMap<String, XdsChannelGrpc>,
    loads: HashMap<String, Load>,
}

impl Client {
    async fn perform(&mut self, line: &str) -> Result<Value, Box<dyn Error>> {
        let command: Command = serde_json::from_str(line)?;
        match command.action.as_str() {
            "open" => {
                let config = XdsChannelConfig::new(XdsUri::parse(&command.target)?);
                let channel = XdsChannelBuilder::new(config).build_grpc_channel()?;
                self.channels.insert(command.channel, channel);
                Ok(json!({}))
            }
            "call" => Ok(call(self.opened(&command)?, command).await?),
            "load_start" => {
                let load = start(self.opened(&command)?, command.clone());
                self.loads.insert(command.channel, load);
                Ok(json!({}))
            }
            "load_stop" => Ok(stop(self.loads.remove(&command.channel).ok_or("no load")?).await?),
            "close" => {
                self.channels.remove(&command.channel);
                Ok(json!({}))
            }
            other => Err(format!("there is no command {other}").into()),
        }
    }

    fn opened(&self, command: &Command) -> Result<XdsChannelGrpc, String> {
        let name = &command.channel;
        self.channels.get(name).cloned().ok_or(format!("there is no channel {name}"))
    }
}

async fn call(channel: XdsChannelGrpc, command: Command) -> Result<Value, Box<dyn Error>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let workers = (0..command.concurrency).map(|_| {
        let (channel, command, begun) = (channel.clone(), command.clone(), begun.clone());
        spawn_local(async move {
            let mut outcomes = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < command.times {
                outcomes.push(call_once(&channel, &command).await);
            }
            outcomes
        })
    });
    let outcomes = join(workers.collect()).await?;
    let hosts: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.reply.as_ref().ok()).collect();
    let milliseconds: Vec<_> = outcomes.iter().map(|outcome| outcome.milliseconds).collect();
    Ok(json!({"hosts": hosts, "failures": failures(&outcomes), "milliseconds": milliseconds}))
}

fn start(channel: XdsChannelGrpc, command: Command) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let workers = (0..command.parallelism).map(|_| {
        let (channel, command, stop) = (channel.clone(), command.clone(), stop.clone());
        spawn_local(async move {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                outcomes.push(call_once(&channel, &command).await);
                tokio::time::sleep(Duration::from_secs_f64(command.interval_seconds)).await;
            }
            outcomes
        })
    });
    let workers = workers.collect();
    Load { stop, workers }
}

async fn stop(load: Load) -> Result<Value, Box<dyn Error>> {
    load.stop.store(true, Ordering::Relaxed);
    let outcomes = join(load.workers).await?;
    let mut hosts: HashMap<&str, usize> = HashMap::new();
    for host in outcomes.iter().filter_map(|outcome| outcome.reply.as_ref().ok()) {
        *hosts.entry(host).or_default() += 1;
    }
    let slowest = outcomes.iter().map(|outcome| outcome.milliseconds).fold(0.0, f64::max);
    Ok(json!({"hosts": hosts, "failures": failures(&outcomes), "slowest": slowest}))
}

async fn join(workers: Vec<JoinHandle<Vec<Outcome>>>) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let mut outcomes = Vec::new();
    for worker in workers {
        outcomes.extend(worker.await?);
    }
    Ok(outcomes)
}

fn failures(outcomes: &[Outcome]) -> Vec<&Failure> {
    outcomes.iter().filter_map(|outcome| outcome.reply.as_ref().err()).collect()
}

async fn call_once(channel: &XdsChannelGrpc, command: &Command) -> Outcome {
    let began = Instant::now();
    let limit = Duration::from_secs_f64(command.timeout_seconds);
    let reply = tokio::time::timeout(limit, say_hello(channel.clone(), command.clone()))
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call's own deadline")));
    let milliseconds = (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
    let reply = reply.map_err(|status| {
        Failure { code: name(status.code()), details: status.message().into(), milliseconds }
    });
    Outcome { reply, milliseconds }
}

/// Any method takes these messages, so that routes by method can be told apart.
async fn say_hello(channel: XdsChannelGrpc, command: Command) -> Result<String, Status> {
    let invalid = |_| Status::invalid_argument("a header or method that is not ASCII");
    let mut request = Request::new(SayHelloRequest { name: "Rust".into() });
    for (name, value) in &command.metadata {
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| invalid(()))?;
        let value = AsciiMetadataValue::try_from(value).map_err(|_| invalid(()))?;
        request.metadata_mut().insert(key, value);
    }
    let path = command.method.parse().map_err(|_| invalid(()))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<SayHelloRequest, SayHelloResponse>::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner().hostname)
}

/// Returns the name of a code as the other languages spell it.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

async fn answer_all() -> Result<(), Box<dyn Error>> {
    let mut client = Client::default();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = client.perform(&line).await;
        println!("{}", answer.unwrap_or_else(|error| json!({"error": error.to_string()})));
    }
    Ok(())
}

// One thread, as rustc can't prove that the futures of generic calls may move between threads.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    LocalSet::new().run_until(answer_all()).await?;
    std::process::exit(0) // without waiting for the thread that reads stdin
}
