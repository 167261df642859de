// One question answered by all four behaviours, side by side; agent/page/compare.py sends `props`.
//
// Chainlit evaluates this file again whenever `props` change. The component has to stay the same
// one, or the browser would build the columns anew each time, and focus and place would be lost.
import { useState } from "react";
import { Button } from "@/components/ui/button";

window.medraftCompare =
  window.medraftCompare ||
  function Compare({ id, title, status, columns, call }) {
    const [pressed, setPressed] = useState(false);
    const press = async (action) => {
      setPressed(true);
      try {
        await call(action);
      } finally {
        setPressed(false);
      }
    };
    return (
      <div className="medraft-compare" role="group" aria-label={title}>
        <p className="medraft-compare-status" role="status">
          {status}
        </p>
        <div className="medraft-compare-columns">
          {columns.map((column) => (
            <section
              key={column.name}
              aria-labelledby={`${id}-${column.name}`}
              aria-busy={column.busy}
              data-taken={column.taken}
            >
              <h3 id={`${id}-${column.name}`}>{column.name}</h3>
              <p className="medraft-compare-about">{column.about}</p>
              {column.note && <p className="medraft-compare-about">{column.note}</p>}
              {column.answer && <p className="medraft-compare-answer">{column.answer}</p>}
              {column.failure && <p className="medraft-compare-failure">{column.failure}</p>}
              {column.facts && <p className="medraft-compare-about">{column.facts}</p>}
              <div className="medraft-compare-buttons">
                {column.buttons.map((action) => (
                  <Button
                    key={action.id}
                    size="sm"
                    variant={action.name === "continue" ? "outline" : "ghost"}
                    title={action.tooltip}
                    disabled={pressed}
                    onClick={() => press(action)}
                  >
                    {action.label}
                    <span className="sr-only"> ({column.name})</span>
                  </Button>
                ))}
              </div>
            </section>
          ))}
        </div>
      </div>
    );
  };

const Compare = window.medraftCompare;

export default <Compare {...props} call={callAction} />;
