// Java's own HTTP client against a server of HTTP/2: requests, a body both ways, an event stream, and a WebSocket.
// It prints a line for each. The arguments are the server's address, and the file with its authority.

import java.io.InputStream;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

class Client {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        String at = arguments[0];
        HttpClient client = HttpClient.newBuilder().sslContext(trusting(Path.of(arguments[1]))).build();

        // The first request makes the connection that the others share.
        client.send(get(at + "/item/first"), BodyHandlers.ofString());
        List<CompletableFuture<HttpResponse<String>>> asked = IntStream.range(0, 99)
            .mapToObj(number -> client.sendAsync(get(at + "/item/" + number), BodyHandlers.ofString())).toList();
        for (int number = 0; number < 99; number++) {
            String body = asked.get(number).get().body();
            if (!body.equals(String.valueOf(number))) throw new AssertionError(body);
        }
        out.println("100 answers by " + asked.get(98).get().version());

        byte[] large = client.send(get(at + "/large"), BodyHandlers.ofByteArray()).body();
        HttpRequest post = HttpRequest.newBuilder(URI.create(at + "/echo")).POST(BodyPublishers.ofByteArray(large)).build();
        HttpResponse<byte[]> back = client.send(post, BodyHandlers.ofByteArray());
        if (!Arrays.equals(large, back.body())) throw new AssertionError(back.body().length + " octets came back");
        out.println(large.length + " octets there and back by " + back.version());

        HttpResponse<Stream<String>> events = client.send(get(at + "/events/5"), BodyHandlers.ofLines());
        try (Stream<String> lines = events.body()) {
            String data = lines.filter(line -> line.startsWith("data:")).findFirst().get();
            out.println(data + " by " + events.version());
        }

        Talk talk = new Talk();
        WebSocket ws = client.newWebSocketBuilder().subprotocols("chat.v1")
            .buildAsync(URI.create(at.replace("https:", "wss:") + "/ws"), talk).get();
        ws.sendText("Gr\u00fc\u00dfe", true).get();
        out.println(ws.getSubprotocol() + ": " + talk.message.get());
        ws.sendClose(4000, "enough").get();
        out.println("closed " + talk.closed.get());
        System.exit(0);
    }

    static HttpRequest get(String uri) {
        return HttpRequest.newBuilder(URI.create(uri)).build();
    }

    static SSLContext trusting(Path authority) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream file = Files.newInputStream(authority)) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    // What comes on the WebSocket.
    static class Talk implements WebSocket.Listener {
        final CompletableFuture<String> message = new CompletableFuture<>();
        final CompletableFuture<String> closed = new CompletableFuture<>();

        @Override
        public CompletionStage<?> onText(WebSocket ws, CharSequence data, boolean last) {
            message.complete(data.toString());
            return WebSocket.Listener.super.onText(ws, data, last);
        }

        @Override
        public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
            closed.complete(code + " " + reason);
            return null;
        }

        @Override
        public void onError(WebSocket ws, Throwable error) {
            message.completeExceptionally(error);
            closed.completeExceptionally(error);
        }
    }
}
