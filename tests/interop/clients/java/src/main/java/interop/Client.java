package interop;

import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonParseException;
import com.google.gson.annotations.SerializedName;
import greeter.v1.GreeterOuterClass.SayHelloRequest;
import greeter.v1.GreeterOuterClass.SayHelloResponse;
import io.grpc.CallOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/** A gRPC client in Java, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON. */
public final class Client {
  // Written by hand: protoc's plugin for grpc-java is a native program that is not available on every platform.
  private static final MethodDescriptor<SayHelloRequest, SayHelloResponse> SAY_HELLO =
      MethodDescriptor.<SayHelloRequest, SayHelloResponse>newBuilder()
          .setType(MethodDescriptor.MethodType.UNARY)
          .setFullMethodName(MethodDescriptor.generateFullMethodName("greeter.v1.Greeter", "SayHello"))
          .setRequestMarshaller(ProtoUtils.marshaller(SayHelloRequest.getDefaultInstance()))
          .setResponseMarshaller(ProtoUtils.marshaller(SayHelloResponse.getDefaultInstance()))
          .build();

  private static final Gson JSON =
      new GsonBuilder().setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES).create();

  private final Map<String, ManagedChannel> channels = new HashMap<>();

  public static void main(String[] arguments) throws IOException {
    Client client = new Client();
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      System.out.println(JSON.toJson(client.answer(line)));
    }
    client.channels.values().forEach(ManagedChannel::shutdownNow);
  }

  private Object answer(String line) {
    try {
      return perform(JSON.fromJson(line, Command.class));
    } catch (JsonParseException | IllegalArgumentException error) {
      return Map.of("error", error.toString());
    }
  }

  private Object perform(Command command) {
    return switch (String.valueOf(command.action)) {
      case "open" -> open(command);
      case "call" -> call(command);
      case "close" -> close(command);
      default -> throw new IllegalArgumentException("there is no command " + command.action);
    };
  }

  private Object open(Command command) {
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(command.target, InsecureChannelCredentials.create());
    if (command.idleSeconds != null) {
      builder.idleTimeout(Math.round(command.idleSeconds * 1000), TimeUnit.MILLISECONDS);
    }
    channels.put(command.channel, builder.build());
    return Map.of();
  }

  private Calls call(Command command) {
    ManagedChannel channel = opened(command.channel);
    Calls calls = new Calls(new ArrayList<>(), new ArrayList<>());
    for (int i = 0; i < command.times; i++) {
      CallOptions options =
          CallOptions.DEFAULT.withDeadlineAfter(Math.round(command.timeoutSeconds * 1000), TimeUnit.MILLISECONDS);
      if (command.waitForReady) {
        options = options.withWaitForReady();
      }
      try {
        SayHelloRequest request = SayHelloRequest.newBuilder().setName("Java").build();
        calls.hosts.add(ClientCalls.blockingUnaryCall(channel, SAY_HELLO, options, request).getHostname());
      } catch (StatusRuntimeException error) {
        String details = Objects.requireNonNullElse(error.getStatus().getDescription(), "");
        calls.failures.add(new Failure(error.getStatus().getCode().name(), details));
      }
    }
    return calls;
  }

  private Object close(Command command) {
    opened(command.channel).shutdownNow();
    channels.remove(command.channel);
    return Map.of();
  }

  private ManagedChannel opened(String name) {
    ManagedChannel channel = channels.get(name);
    if (channel == null) {
      throw new IllegalArgumentException("there is no channel " + name);
    }
    return channel;
  }

  private record Command(
      @SerializedName("do") String action,
      String channel,
      String target,
      Double idleSeconds,
      int times,
      double timeoutSeconds,
      boolean waitForReady) {}

  private record Calls(List<String> hosts, List<Failure> failures) {}

  private record Failure(String code, String details) {}
}
