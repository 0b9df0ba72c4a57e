package interop;

import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

/** The verbs of the line protocol. Connections and statements are known by numbers. */
final class Commands {
  private final AtomicLong numbers = new AtomicLong();
  private final Map<Long, Connection> connections = new ConcurrentHashMap<>();
  private final Map<Long, Statement> statements = new ConcurrentHashMap<>();

  Object run(String verb, List<String> arguments) throws Exception {
    return switch (verb) {
      case "connect" -> connect(arguments.get(0), arguments.subList(1, arguments.size()));
      case "disconnect" -> close(connections.remove(number(arguments, 0)));
      case "valid" -> connection(arguments).isValid((int) number(arguments, 1));
      case "product" -> product(connection(arguments).getMetaData());
      case "tables" -> tables(connection(arguments).getMetaData());
      case "prepare" -> prepare(connection(arguments), arguments.get(1));
      case "statement" -> keep(statements, connection(arguments).createStatement());
      case "limits" -> limits(statement(arguments), (int) number(arguments, 1), (int) number(arguments, 2));
      case "execute" -> execute(statement(arguments), arguments.get(1));
      case "fetch" -> Rows.read(statement(arguments).getResultSet(), number(arguments, 1), number(arguments, 2));
      case "exact" -> Exact.rows(statement(arguments).getResultSet());
      case "scan" -> Scan.run(statement(arguments), arguments.get(1));
      case "close-results" -> close(statement(arguments).getResultSet());
      case "cancel" -> cancel(statement(arguments));
      case "close" -> close(statements.remove(number(arguments, 0)));
      default -> throw new IllegalArgumentException("unknown verb " + verb);
    };
  }

  private long connect(String address, List<String> properties) throws SQLException {
    Properties given = new Properties();
    for (String property : properties) {
      String[] pair = property.split("=", 2);
      given.setProperty(pair[0], pair[1]);
    }
    return keep(connections, DriverManager.getConnection("jdbc:drill:drillbit=" + address, given));
  }

  private static Map<String, Object> product(DatabaseMetaData meta) throws SQLException {
    Map<String, Object> product = new LinkedHashMap<>();
    product.put("name", meta.getDatabaseProductName());
    product.put("version", meta.getDatabaseProductVersion());
    product.put("quote", meta.getIdentifierQuoteString());
    return product;
  }

  /** A request for metadata: GET_TABLES. */
  private static Map<String, Object> tables(DatabaseMetaData meta) throws SQLException {
    try (ResultSet tables = meta.getTables(null, null, "%", null)) {
      return Rows.read(tables, Long.MAX_VALUE, Long.MAX_VALUE);
    }
  }

  /** CREATE_PREPARED_STATEMENT: the columns that running it would give. */
  private static List<Object> prepare(Connection connection, String sql) throws SQLException {
    try (PreparedStatement prepared = connection.prepareStatement(sql)) {
      return Rows.columns(prepared.getMetaData());
    }
  }

  private static Object limits(Statement statement, int rows, int seconds) throws SQLException {
    statement.setMaxRows(rows);
    statement.setQueryTimeout(seconds);
    return null;
  }

  /** The columns of a result set, or the update count. */
  private static Map<String, Object> execute(Statement statement, String sql) throws SQLException {
    Map<String, Object> outcome = new LinkedHashMap<>();
    if (statement.execute(sql)) {
      ResultSet results = statement.getResultSet();
      outcome.put("columns", Rows.columns(results.getMetaData()));
    } else {
      outcome.put("updated", statement.getUpdateCount());
    }
    return outcome;
  }

  private static Object cancel(Statement statement) throws SQLException {
    statement.cancel();
    return null;
  }

  private static Object close(AutoCloseable open) throws Exception {
    open.close();
    return null;
  }

  private <T> long keep(Map<Long, T> kept, T value) {
    long number = numbers.incrementAndGet();
    kept.put(number, value);
    return number;
  }

  private Connection connection(List<String> arguments) {
    return Objects.requireNonNull(connections.get(number(arguments, 0)), "no such connection");
  }

  private Statement statement(List<String> arguments) {
    return Objects.requireNonNull(statements.get(number(arguments, 0)), "no such statement");
  }

  private static long number(List<String> arguments, int index) {
    return Long.parseLong(arguments.get(index));
  }
}
