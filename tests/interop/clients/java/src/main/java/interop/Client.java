package interop;

import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonParseException;
import com.google.gson.annotations.SerializedName;
import greeter.v1.GreeterOuterClass.SayHelloRequest;
import greeter.v1.GreeterOuterClass.SayHelloResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.ServerCalls;
import io.grpc.xds.XdsChannelCredentials;
import io.grpc.xds.XdsServerBuilder;
import io.grpc.xds.XdsServerCredentials;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** A gRPC client in Java, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON. */
public final class Client {
  private static final Gson JSON =
      new GsonBuilder().setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES).create();

  private final Map<String, ManagedChannel> channels = new HashMap<>();
  private final Map<String, Load> loads = new HashMap<>();

  public static void main(String[] arguments) throws IOException, InterruptedException {
    Client client = new Client();
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      System.out.println(JSON.toJson(client.answer(line)));
    }
    client.channels.values().forEach(ManagedChannel::shutdownNow);
  }

  private Object answer(String line) throws InterruptedException {
    try {
      return perform(JSON.fromJson(line, Command.class));
    } catch (JsonParseException | IllegalArgumentException error) {
      return Map.of("error", error.toString());
    }
  }

  private Object perform(Command command) throws InterruptedException {
    return switch (String.valueOf(command.action)) {
      case "open" -> open(command);
      case "serve" -> serve(command);
      case "call" -> call(command);
      case "load_start" -> startLoad(command);
      case "load_stop" -> stopLoad(command);
      case "close" -> close(command);
      default -> throw new IllegalArgumentException("there is no command " + command.action);
    };
  }

  private Object open(Command command) {
    ManagedChannelBuilder<?> builder =
        // Encrypts if the control plane says so.
        Grpc.newChannelBuilder(
            command.target, XdsChannelCredentials.create(InsecureChannelCredentials.create()));
    if (command.idleSeconds != null) {
      builder.idleTimeout(Math.round(command.idleSeconds * 1000), TimeUnit.MILLISECONDS);
    }
    channels.put(command.channel, builder.build());
    return Map.of();
  }

  /** Serves a greeter as the control plane says, until the program ends. */
  private Object serve(Command command) {
    SayHelloResponse reply = SayHelloResponse.newBuilder().setHostname(command.name).build();
    ServerServiceDefinition service =
        ServerServiceDefinition.builder("greeter.v1.Greeter")
            .addMethod(
                method("greeter.v1.Greeter/SayHello"),
                ServerCalls.asyncUnaryCall(
                    (request, observer) -> {
                      observer.onNext(reply);
                      observer.onCompleted();
                    }))
            .build();
    try {
      XdsServerBuilder.forPort(
              command.port, XdsServerCredentials.create(InsecureServerCredentials.create()))
          .addService(service)
          .build()
          .start();
    } catch (IOException error) {
      throw new IllegalArgumentException(error);
    }
    return Map.of();
  }

  private Calls call(Command command) throws InterruptedException {
    Supplier<Result> call = prepare(command);
    AtomicInteger left = new AtomicInteger(command.times);
    Workers workers =
        new Workers(
            command.concurrency,
            results -> {
              while (left.getAndDecrement() > 0) {
                results.add(call.get());
              }
            });
    List<Result> results = workers.results();
    return new Calls(
        succeeded(results).map(Result::host).toList(),
        failures(results),
        results.stream().map(Result::milliseconds).toList());
  }

  private Object startLoad(Command command) {
    Supplier<Result> call = prepare(command);
    CountDownLatch stop = new CountDownLatch(1);
    long interval = Math.round(command.intervalSeconds * 1000);
    Workers workers =
        new Workers(
            command.parallelism,
            results -> {
              while (!stop.await(interval, TimeUnit.MILLISECONDS)) {
                results.add(call.get());
              }
            });
    loads.put(command.channel, new Load(stop, workers));
    return Map.of();
  }

  private LoadResult stopLoad(Command command) throws InterruptedException {
    Load load = loads.remove(command.channel);
    load.stop.countDown();
    List<Result> results = load.workers.results();
    return new LoadResult(
        succeeded(results).collect(Collectors.groupingBy(Result::host, Collectors.counting())),
        failures(results),
        results.stream().mapToDouble(Result::milliseconds).max().orElse(0));
  }

  private Object close(Command command) {
    opened(command.channel).shutdownNow();
    channels.remove(command.channel);
    return Map.of();
  }

  /** Returns a function that makes one call and waits for its end. */
  private Supplier<Result> prepare(Command command) {
    Metadata headers = new Metadata();
    command.metadata.forEach(
        (name, value) -> headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    Channel channel =
        ClientInterceptors.intercept(
            opened(command.channel), MetadataUtils.newAttachHeadersInterceptor(headers));
    MethodDescriptor<SayHelloRequest, SayHelloResponse> method = method(command.method.substring(1));
    SayHelloRequest request = SayHelloRequest.newBuilder().setName("Java").build();
    return () -> {
      CallOptions options =
          CallOptions.DEFAULT.withDeadlineAfter(Math.round(command.timeoutSeconds * 1000), TimeUnit.MILLISECONDS);
      if (command.waitForReady) {
        options = options.withWaitForReady();
      }
      long began = System.nanoTime();
      try {
        String host = ClientCalls.blockingUnaryCall(channel, method, options, request).getHostname();
        return new Result(host, null, millisecondsSince(began));
      } catch (StatusRuntimeException error) {
        double elapsed = millisecondsSince(began);
        String details = Objects.requireNonNullElse(error.getStatus().getDescription(), "");
        return new Result("", new Failure(error.getStatus().getCode().name(), details, elapsed), elapsed);
      }
    };
  }

  /**
   * Written by hand: protoc's plugin for grpc-java is a native program that is not available on every platform. Any
   * method takes these messages, so that routes by method can be told apart.
   */
  private static MethodDescriptor<SayHelloRequest, SayHelloResponse> method(String name) {
    return MethodDescriptor.<SayHelloRequest, SayHelloResponse>newBuilder()
        .setType(MethodDescriptor.MethodType.UNARY)
        .setFullMethodName(name)
        .setRequestMarshaller(ProtoUtils.marshaller(SayHelloRequest.getDefaultInstance()))
        .setResponseMarshaller(ProtoUtils.marshaller(SayHelloResponse.getDefaultInstance()))
        .build();
  }

  private ManagedChannel opened(String name) {
    ManagedChannel channel = channels.get(name);
    if (channel == null) {
      throw new IllegalArgumentException("there is no channel " + name);
    }
    return channel;
  }

  private static Stream<Result> succeeded(List<Result> results) {
    return results.stream().filter(result -> result.failure == null);
  }

  private static List<Failure> failures(List<Result> results) {
    return results.stream().map(Result::failure).filter(Objects::nonNull).toList();
  }

  private static double millisecondsSince(long began) {
    return Math.round((System.nanoTime() - began) / 1e5) / 10.0;
  }

  /** Threads that make calls. */
  private static final class Workers {
    private interface Work {
      void addTo(List<Result> results) throws InterruptedException;
    }

    private final List<Result> results = Collections.synchronizedList(new ArrayList<>());
    private final List<Thread> threads = new ArrayList<>();

    Workers(int number, Work work) {
      for (int i = 0; i < number; i++) {
        Thread thread =
            new Thread(
                () -> {
                  try {
                    work.addTo(results);
                  } catch (InterruptedException error) {
                    throw new IllegalStateException(error);
                  }
                });
        thread.start();
        threads.add(thread);
      }
    }

    /** Waits until all threads have ended. */
    List<Result> results() throws InterruptedException {
      for (Thread thread : threads) {
        thread.join();
      }
      return results;
    }
  }

  private record Command(
      @SerializedName("do") String action,
      String channel,
      String target,
      Double idleSeconds,
      String name,
      int port,
      int times,
      int concurrency,
      int parallelism,
      double intervalSeconds,
      String method,
      Map<String, String> metadata,
      double timeoutSeconds,
      boolean waitForReady) {}

  private record Result(String host, Failure failure, double milliseconds) {}

  private record Load(CountDownLatch stop, Workers workers) {}

  private record Calls(List<String> hosts, List<Failure> failures, List<Double> milliseconds) {}

  private record LoadResult(Map<String, Long> hosts, List<Failure> failures, double slowest) {}

  private record Failure(String code, String details, double milliseconds) {}
}
