package interop;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;

/** Connects to a URL, as {@code jdbc:drill:zk=...}, runs one statement, and prints its first value. */
public final class ClusterQuery {
  private ClusterQuery() {}

  public static void main(String[] args) throws Exception {
    try (Connection connection = DriverManager.getConnection(args[0]);
        Statement statement = connection.createStatement();
        ResultSet results = statement.executeQuery(args[1])) {
      results.next();
      System.out.println("value " + results.getObject(1));
    }
    // The driver leaves threads behind.
    Runtime.getRuntime().halt(0);
  }
}
