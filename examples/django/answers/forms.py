"""The form that asks."""

from django import forms


class QuestionForm(forms.Form):
    """A question, and a key that makes one job of it however often it is sent."""

    key = forms.UUIDField(widget=forms.HiddenInput)
    prompt = forms.CharField(max_length=20_000, widget=forms.Textarea)
