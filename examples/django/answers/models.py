"""What was asked, by its job's id, and the answer: the fleet itself forgets that after a day."""

from django.db import models
from django.urls import reverse

from answers.fleet import producer
from producer import FailureCode, InferenceFailed, JobState, ResultExpired, ResultNotReady


class Question(models.Model):
    """One question; its id is its job's."""

    job_id = models.UUIDField(primary_key=True)
    prompt = models.TextField()
    state = models.CharField(max_length=20, default=JobState.QUEUED.value)
    answer = models.TextField(blank=True)
    asked_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.prompt[:80]

    def get_absolute_url(self) -> str:
        """Its page."""
        return reverse("look", args=[self.job_id])

    @property
    def is_open(self) -> bool:
        """Whether an answer may still come."""
        return self.state in {JobState.QUEUED, JobState.RUNNING, JobState.RETRYING}

    def look(self) -> None:
        """Ask the fleet how it stands, and keep what it says; only while it is open."""
        if not self.is_open:
            return
        try:
            self.answer = producer.result(str(self.job_id), timeout_seconds=0).text
            self.state = JobState.SUCCEEDED
        except ResultNotReady:
            self.state = producer.status(str(self.job_id)).state
            if not self.is_open:  # it ended between the two looks: the next one brings the answer
                self.state = JobState.RUNNING
        except InferenceFailed as error:
            self.state = JobState.CANCELLED if error.code is FailureCode.CANCELLED else JobState.FAILED
        except ResultExpired:
            self.state = "expired"
        self.save()
