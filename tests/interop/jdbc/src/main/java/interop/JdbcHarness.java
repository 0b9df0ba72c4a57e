package interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * The Drill JDBC driver behind a line protocol, so that one JVM serves many tests.
 *
 * <p>A request is a line of tab-separated fields ({@code \t}, {@code \n} and {@code \\} escaped): a
 * number, a verb, its arguments. A reply is a line of JSON with the same number, and either
 * {@code result} or {@code error}. Every request runs on a thread of its own, so a cancel passes the
 * fetch that it is meant for, and replies come in any order. The end of stdin ends the program.
 */
public final class JdbcHarness {
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final Commands commands = new Commands();
  private final PrintStream replies;

  private JdbcHarness(PrintStream replies) {
    this.replies = replies;
  }

  public static void main(String[] args) throws Exception {
    PrintStream replies = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    // Whatever else prints must not break the protocol.
    System.setOut(System.err);
    JdbcHarness harness = new JdbcHarness(replies);
    replies.println("ready");
    BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      harness.accept(line);
    }
    Runtime.getRuntime().halt(0);
  }

  private void accept(String line) {
    List<String> fields = fields(line);
    threads.execute(() -> reply(fields.get(0), fields.get(1), fields.subList(2, fields.size())));
  }

  private void reply(String number, String verb, List<String> arguments) {
    Map<String, Object> reply = new LinkedHashMap<>();
    reply.put("id", Long.valueOf(number));
    try {
      reply.put("result", commands.run(verb, arguments));
    } catch (Throwable failure) {
      reply.put("error", Failures.describe(failure));
    }
    String line = Json.write(reply);
    synchronized (replies) {
      replies.println(line);
    }
  }

  private static List<String> fields(String line) {
    List<String> fields = new ArrayList<>();
    for (String field : line.split("\t", -1)) {
      fields.add(unescape(field));
    }
    return fields;
  }

  private static String unescape(String field) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < field.length(); i++) {
      char c = field.charAt(i);
      if (c != '\\') {
        text.append(c);
        continue;
      }
      i++;
      switch (field.charAt(i)) {
        case 't' -> text.append('\t');
        case 'n' -> text.append('\n');
        default -> text.append(field.charAt(i));
      }
    }
    return text.toString();
  }
}
