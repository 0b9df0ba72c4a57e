package interop;

import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a caller of the driver can tell about a failure, as JSON. */
final class Failures {
  private Failures() {}

  static Map<String, Object> describe(Throwable failure) {
    Map<String, Object> description = one(failure);
    if (failure instanceof SQLException sql) {
      description.put("state", sql.getSQLState());
      description.put("code", sql.getErrorCode());
    }
    List<Object> causes = new ArrayList<>();
    for (Throwable cause = failure.getCause(); cause != null; cause = cause.getCause()) {
      causes.add(one(cause));
    }
    description.put("causes", causes);
    return description;
  }

  private static Map<String, Object> one(Throwable failure) {
    Map<String, Object> description = new LinkedHashMap<>();
    description.put("class", failure.getClass().getName());
    description.put("message", failure.getMessage());
    return description;
  }
}
