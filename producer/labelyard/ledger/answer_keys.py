"""Keys of counted answers: how the versions of label sets are used."""

from labelyard.ledger.key_namespace import KeyNamespace


class AnswerKeys(KeyNamespace):
    """Counts of answers, by version and hour, and of canaries."""

    def answers(self, digest: str, hour: int) -> str:
        """Answers of one version of a label set in one hour.

        Type: hash
        Holds: `n`, `abstained`, `unmatched`; `score:…`, pictures by the bin of their best score;
            `answer:…`, by their best label; `flush:…`, the last addition of each worker. At most
            about 500 fields.
        Writer: workers, every 5 seconds.
        TTL: 35 days after the last addition.
        """
        return f"{self.namespace}:answers:{digest}:{hour}"

    def canary(self, alias: str, reference: str, canary: str) -> str:
        """Comparison of an alias' version with its canary.

        Type: hash
        Holds: `jobs`, `images`, `same`, `same_matched`, `failed`; `score_change` in millionths;
            `flip:…`, pictures by both answers; `failure:…`, by the code; `flush:…`. At most about
            500 fields.
        Writer: workers, every 5 seconds.
        TTL: 35 days after the last addition.
        """
        return f"{self.namespace}:canary:{alias}:{reference}:{canary}"
